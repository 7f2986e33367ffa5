"""The chat in the terminal: what is typed wrongly costs nobody the dialogue.

python -m pytest tests/unit/fastchat/serve/test_cli.py
"""

import io
import json
import re
import sys

import pytest

from fastchat.client.http import PeerError
from fastchat.serve import cli, launch_all_serve


@pytest.fixture
def typed(monkeypatch, tmp_path):
    """A chat, in a folder of its own, with a model that says `answers` one after the other."""
    monkeypatch.chdir(tmp_path)
    problem = {"question": "2 + 3?", "answer": "#### 5"}
    (tmp_path / "problems.jsonl").write_text(json.dumps(problem) + "\n")

    def chat(*lines, answers=(), options=()):
        given = iter(answers)

        async def answer(chat, body):
            chat.screen.say(f"sees {len(body['messages'])}")
            said = next(given, "an answer")
            if said is None:
                raise PeerError("connection", "no worker")
            return said

        monkeypatch.setattr(cli.Chat, "_answer", answer)
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
    stock = {"messages": [["USER", "Hi"], ["ASSISTANT", "Hello"]]}
    for name, kept in {
        "stock": stock,
        "bare": {"messages": [{"content": "Hi"}]},
        "list": [],
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(kept))
    typed("Hi", "!!save /nowhere/x", "!!load stock", "!!load bare", "!!load list", "!!save a.1")
    shown = capsys.readouterr().out
    assert "No such file or directory" in shown and shown.count("holds no dialogue") == 3
    kept = json.loads((tmp_path / "a.1.json").read_text())["messages"]
    assert [message["content"] for message in kept] == ["Hi", "an answer"]


def test_a_folder_of_logs_that_is_a_file_is_one_line(capsys, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as end:
        launch_all_serve.main(["--model-path-address", "m", "--log-dir", str(tmp_path / "file")])
    assert end.value.code == 2 and "File exists" in capsys.readouterr().err
