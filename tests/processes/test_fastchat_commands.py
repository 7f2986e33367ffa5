"""FastChat's commands around the servers, on one controller and one tiny worker.

python -m pytest tests/processes/test_fastchat_commands.py
"""

import io
import json
import os
import re
import signal
import sys

import pytest

from fastchat.client.process import free_ports
from fastchat.serve import cli, launch_all_serve, register_worker, shutdown_serve, status
from fastchat.serve import test_message as message
from fastchat.serve.screens import END_OF_MESSAGE
from tests.support.servers import ENVIRONMENT, alive, post, wait_for

ROWS = [{"question": f"What is {n} + 3?", "answer": f"#### {n + 3}"} for n in (2, 4)]


@pytest.fixture(scope="module")
def served(checkpoint, tmp_path_factory):
    """A folder from which launch_all_serve has started all three servers, and the ports."""
    folder = tmp_path_factory.mktemp("serve")
    controller, worker, api = map(str, free_ports(3))
    options = [f"--model-path-address={checkpoint()}@localhost@{worker}", "--server-port", api]
    options += ["--controller-port", controller, "--log-dir", str(folder / "logs")]
    (folder / "logs").mkdir()
    (folder / "logs" / "controller.log").write_text("of an earlier start")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        launch_all_serve.main([*options, "--device", "cpu"])
    signal.signal(signal.SIGTERM, before)
    yield folder, controller, worker
    if (folder / "logs" / "serve.json").exists():
        shutdown_serve.main(["--down", "all", "--log-dir", str(folder / "logs")])


def typed(monkeypatch, *lines):
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_a_message_is_answered(served, capsys):
    _, controller, worker = served
    options = ["--model-name", "tiny-llama", "--message", "2 + 2?", "--controller-address"]
    message.main([*options, controller])
    through = capsys.readouterr().out
    assert re.fullmatch(r"USER: 2 \+ 2\?\nASSISTANT: .+\n", through, re.DOTALL)
    message.main([*options, "1", "--worker-address", worker])
    assert capsys.readouterr().out == through
    message.main([*options, controller, "--max-new-tokens", "1"])
    cut = "\n(cut at the limit of new tokens: --max-new-tokens 1)\n"
    assert capsys.readouterr().out.endswith(cut)
    with pytest.raises(SystemExit) as end:
        message.main(["--model-name", "nobody", "--controller-address", controller])
    assert "has no worker of nobody" in end.value.code


def test_the_status_shows_models_workers_and_rates(served, capsys):
    _, controller, worker = served
    status.main(["--controller-address", controller, "--seconds", "0.1"])
    first, header, row = capsys.readouterr().out.splitlines()
    assert first == f"http://localhost:{controller}: 1 model, 1 worker"
    assert header.split() == ["worker", "models", "queue", "running", "tokens/s", "context"]
    assert row.split()[:5] == [f"http://localhost:{worker}", "tiny-llama", "0", "0", "0.0"]


def test_a_worker_is_registered_by_hand(served, capsys):
    _, controller, worker = served
    register_worker.main(
        ["--controller-address", controller, "--worker-name", f"127.0.0.1:{worker}"]
    )
    assert "registered http://127.0.0.1" in capsys.readouterr().out
    status.main(["--controller-address", controller, "--seconds", "0"])
    assert f"http://127.0.0.1:{worker}  tiny-llama" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        name = f"http://localhost:{free_ports(1)[0]}"
        register_worker.main(["--controller-address", controller, "--worker-name", name])
    assert "does not answer /worker_get_status" in end.value.code


def test_a_chat_is_kept_loaded_and_answered_again(served, capsys, monkeypatch, tmp_path):
    _, controller, _ = served
    monkeypatch.chdir(tmp_path)
    options = ["--model-name", "tiny-llama", "--controller-address", controller]
    options += ["--max-new-tokens", "8", "--temperature", "0"]
    typed(
        monkeypatch, "Hello", "!!regen", "!!save kept", "More", "!!remove", "!!reset", "!!load kept"
    )
    cli.main(options)
    shown = capsys.readouterr().out
    first, again = re.findall(r"ASSISTANT: (.*)\n", shown)[:2]
    kept = json.loads((tmp_path / "kept.json").read_text())["messages"]
    assert first == again and kept[0] == {"role": "user", "content": "Hello"} and len(kept) == 2
    assert "2 messages are left" in shown and "USER: Hello" in shown

    typed(monkeypatch, f"Hello{END_OF_MESSAGE[:-1]}")
    cli.main([*options, "--style", "programmatic"])
    assert f"[!OP:USER]: Hello\n[!OP:ASSISTANT]: {first}\n" in capsys.readouterr().out


def test_a_problem_is_tried_again_with_verdicts(served, capsys, monkeypatch, tmp_path):
    _, controller, _ = served
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    options = ["--model-name", "tiny-llama", "--controller-address", controller]
    options += ["--max-new-tokens", "8", "--env", "gsm8k", "--data-path", str(path)]
    typed(monkeypatch, "/retry", "/problem 1", "/problem 7", "!!exit", "unread")
    cli.main([*options, "--problem", "0"])
    shown = capsys.readouterr().out
    assert shown.startswith("problem 0: What is 2 + 3?\nASSISTANT: ")
    assert re.findall(r"(attempt \d): .", shown) == ["attempt 1", "attempt 2", "attempt 1"]
    assert "problem 1: What is 4 + 3?" in shown and "has problems 0 to 1" in shown
    with pytest.raises(SystemExit) as end:
        cli.main([*options, "--problem", "2"])
    assert end.value.code == 2 and "has problems 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize("command", [status, message])
def test_without_a_controller_the_way_to_one_is_named(command):
    model = ["--model-name", "m"] if command is message else []
    with pytest.raises(SystemExit) as end:
        command.main([*model, "--controller-address", f"http://localhost:{free_ports(1)[0]}"])
    assert "python -m fastchat.serve.controller" in end.value.code


def test_what_was_launched_is_ended_and_nothing_else(served, capsys):
    folder, controller, _ = served
    logs = folder / "logs"
    assert "earlier" not in (logs / "controller.log").read_text()
    kept = json.loads((logs / "serve.json").read_text())
    assert list(kept) == ["controller", "model_worker.0", "openai_api_server"]
    with pytest.raises(SystemExit) as end:
        launch_all_serve.main(["--model-path-address", "m", "--log-dir", str(logs)])
    assert end.value.code == 2 and "still run" in capsys.readouterr().err

    shutdown_serve.main(["--down", "model_worker", "--log-dir", str(logs)])
    wait_for(lambda: not alive(kept["model_worker.0"]["pid"]), 10)
    assert alive(kept["controller"]["pid"])
    assert post(f"http://localhost:{controller}/get_worker_address", {"model": "tiny-llama"}) == {
        "address": ""
    }
    # A process that has the number of one that was launched is another one.
    kept["openai_api_server"]["pid"], other = os.getpid(), kept["openai_api_server"]["pid"]
    record = {name: kept[name] for name in ("controller", "openai_api_server")}
    (logs / "serve.json").write_text(json.dumps(record))
    shutdown_serve.main(["--down", "all", "--log-dir", str(logs)])
    wait_for(lambda: not alive(kept["controller"]["pid"]), 10)
    assert not (logs / "serve.json").exists()
    os.killpg(other, signal.SIGKILL)
    with pytest.raises(SystemExit) as end:
        shutdown_serve.main(["--down", "all", "--log-dir", str(logs)])
    assert end.value.code == 2
