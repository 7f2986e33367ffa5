"""The chat in the terminal: what is typed wrongly costs nobody the dialogue.

python -m pytest tests/unit/fastchat/serve/test_cli.py
"""

import io
import json
import re
import socket
import sys

import pytest

from fastchat.client.http import PeerError
from fastchat.client.process import free_ports
from fastchat.model import hub
from fastchat.serve import cli, launch_all_serve, screens

STOCK = {
    "template_name": "one_shot",
    "system_message": "Be brief.",
    "roles": ["USER", "ASSISTANT"],
    "messages": [["USER", "Hi"], ["ASSISTANT", "Hello"]],
    "offset": 0,
}
"""What !!save of FastChat 0.2.36 writes."""


@pytest.fixture
def typed(monkeypatch, tmp_path):
    """A chat, in a folder of its own, with a model that says `answers` one after the other."""
    monkeypatch.chdir(tmp_path)
    problem = {"question": "2 + 3?", "answer": "#### 5"}
    (tmp_path / "problems.jsonl").write_text(json.dumps(problem) + "\n")

    def chat(*lines, answers=(), options=()):
        given = iter(answers)

        async def answer(screen, body):
            screen.say(f"sees {len(body['messages'])}")
            said = next(given, "an answer")
            if said is None:
                raise PeerError("connection", "no worker")
            return said

        monkeypatch.setattr(screens.Screen, "answer", answer)
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        cli.main(["--model-name", "m", *options])

    return chat


@pytest.mark.parametrize(("lines", "answers"), [(["/retry"], [None]), (["!!remove", "/retry"], [])])
def test_a_problem_without_an_attempt_is_not_tried_again(typed, capsys, lines, answers):
    options = ("--env", "gsm8k", "--data-path", "problems.jsonl", "--problem", "0")
    for style in ("bare", "default"):  # the default shows the model another problem's answer
        typed(*lines, "Hi", answers=answers, options=(*options, "--prompt-style", style))
        shown = capsys.readouterr().out
        assert "/retry needs an attempt" in shown and "attempt 2" not in shown
        assert shown.count("attempt 1") == len(lines) - 1


def test_an_attempt_that_is_given_again_sees_what_it_saw(typed, capsys):
    options = ("--env", "gsm8k", "--data-path", "problems.jsonl", "--problem", "0")
    options += ("--prompt-style", "bare")
    typed("/retry", "/retry", "!!regen", options=options)
    # The opening; then the last attempt and what was said of it stand behind it.
    assert re.findall(r"sees (\d)", capsys.readouterr().out) == ["1", "3", "3", "3"]
    typed("a", "b", "!!regen", options=("--no-history",))
    assert re.findall(r"sees (\d)", capsys.readouterr().out) == ["1", "1", "1"]


def test_files_that_cannot_be_written_or_read_leave_the_dialogue(typed, capsys, tmp_path):
    for name, kept in {
        "bare": {"messages": [{"content": "Hi"}]},
        "list": [],
        "unknown": STOCK | {"roles": ["Human", "Bot"]},
        "half": STOCK | {"messages": [["USER", "Hi"], ["ASSISTANT", None]]},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(kept))
    loads = [f"!!load {name}" for name in ("bare", "list", "unknown", "half", "missing")]
    typed("Hi", "!!save /nowhere/x", *loads, "!!save a.1")
    shown = capsys.readouterr().out
    assert "No such file or directory" in shown and shown.count("holds no dialogue") == 5
    kept = json.loads((tmp_path / "a.1.json").read_text())["messages"]
    assert [message["content"] for message in kept] == ["Hi", "an answer"]


def test_a_dialogue_that_stock_fastchat_has_saved_goes_on(typed, capsys, tmp_path):
    (tmp_path / "old.txt").write_text(json.dumps(STOCK))
    typed("!!load old.txt", "More", "!!save new", "!!rest", "!!reset", "Hi")
    shown = capsys.readouterr().out
    assert "USER: Hi\nASSISTANT: Hello\n" in shown and "!!rest is none of !!exit, !!" in shown
    # What the model sees begins with the system message, until the dialogue is another one.
    assert re.findall(r"sees (\d)", shown) == ["4", "1"]
    kept = json.loads((tmp_path / "new.json").read_text())
    assert kept["system_message"] == "Be brief."
    assert [message["content"] for message in kept["messages"]] == [
        *("Hi", "Hello", "More", "an answer")
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["./typo"], "there is no directory './typo'"),
        (["org/typo"], "org/typo is no directory here"),
        (["m@localhost"], "give MODEL or MODEL@HOST@PORT"),
        (["m", "--dtyp", "float32"], "did you mean --dtype?"),
        (["m", "--log-dir", "file"], "File exists"),
        (["m", "--controller-port", "TAKEN"], "choose another one with --controller-port"),
        (["m@localhost@TAKEN"], "choose another one with --model-path-address MODEL@HOST@PORT"),
    ],
)
def test_what_cannot_be_launched_is_one_line_and_nothing_is_started(
    words, said, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "unreachable", lambda: "no network" if "org" in words[0] else None)
    (tmp_path / "file").touch()
    ports = map(str, free_ports(3))
    places = [f"--server-port={next(ports)}", f"--controller-port={next(ports)}"]
    with pytest.raises(SystemExit) as end, socket.create_server(("localhost", 0)) as other:
        taken = str(other.getsockname()[1])
        address, *more = [word.replace("TAKEN", taken) for word in words]
        address += "" if "@" in address else f"@localhost@{next(ports)}"
        launch_all_serve.main([*places, "--model-path-address", address, *more])
    error = capsys.readouterr().err
    assert end.value.code == 2 and said in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
