"""The server that a worker starts itself: it lives as long as the worker, and says why it does not.

    python -m pytest tests/processes/test_vllm_server.py

vLLM needs a GPU, so a small command stands in for it: it takes the command line of `vllm serve` and
is a server with a child of its own, in front of a real model through our own OpenAI server.
"""

import os
import signal
import sys

import pytest

from fastchat.serve import vllm_worker
from tests.support.servers import ASK, CONTEXT, alive, free_port, post, process, wait_for

STAND_IN = """#!{python}
import subprocess, sys
from fastchat.serve import openai_api_server

command, model, *options = sys.argv[1:]
print(command, model, flush=True)
if "broken" in options:
    sys.exit("no such dtype")
print("helper", subprocess.Popen(["sleep", "600"]).pid, flush=True)
known = ("--host", "--port", "--controller-address")
pairs = zip(options[::2], options[1::2])
openai_api_server.main([word for pair in pairs if pair[0] in known for word in pair])
"""


@pytest.fixture
def stand_in(tmp_path):
    command = tmp_path / "vllm"
    command.write_text(STAND_IN.format(python=sys.executable))
    command.chmod(0o755)
    return command


def helper_of(log):
    lines = log.read_text().splitlines()
    return int(next(line for line in lines if line.startswith("helper")).split()[1])


def server_of(worker):
    children = f"/proc/{worker.pid}/task/{worker.pid}/children"
    with open(children) as file:
        return int(file.read().split()[0])


@pytest.mark.parametrize("ending", ["asked", "killed", "server died"])
def test_a_started_server_lives_as_long_as_its_worker(stand_in, controller_url, checkpoint, ending):
    port, log = free_port(), stand_in.with_name("log")
    options = ["--model-path", checkpoint(), "--vllm-log", log, "--port", port, "--no-register"]
    options.append(f"--vllm-args=--controller-address {controller_url}")
    module, variables = "fastchat.serve.vllm_worker", {}
    if ending == "asked":
        module, variables = "fastchat.serve.model_worker", {"VLLM_BIN": str(stand_in)}
    options += ["--engine", "vllm"] if variables else ["--vllm-bin", stand_in]
    with process(module, *options, environment=variables) as worker:
        url = f"http://localhost:{port}"
        # The port is taken long before the server behind it is ready.
        details = wait_for(lambda: worker.poll() is not None or post(f"{url}/model_details"))
        assert worker.poll() is None, worker.stderr.read()
        assert details == {"context_length": CONTEXT}
        server, helper = server_of(worker), helper_of(log)
        assert alive(server) and alive(helper)
        if ending == "asked":
            reply = post(f"{url}/worker_generate", {**ASK, "n": 2, "return_token_ids": True})
            assert reply["error_code"] == 0 and len(reply["token_ids"]) == 2
            assert post(f"{url}/worker_get_status")["served_by"].startswith("vllm ")
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0
        elif ending == "server died":
            os.kill(server, signal.SIGKILL)
            assert worker.wait(60) == 1
            assert "the server ended with code -9" in worker.stderr.read()
        else:
            worker.kill()
            worker.wait()
            # The kernel tells the server; what the server started is then the server's to end.
            wait_for(lambda: not alive(server), 60)
            os.kill(helper, signal.SIGKILL)
        wait_for(lambda: not (alive(server) or alive(helper)), 60)


def test_a_server_that_does_not_start_shows_its_last_words(stand_in, checkpoint, capsys):
    options = ["--vllm-bin", stand_in, "--vllm-args=--dtype broken", "--port", 0]
    log = stand_in.with_name("log")
    assert leaves(1, "--model-path", checkpoint(), "--vllm-log", log, *options)
    errors = capsys.readouterr().err
    assert "the server ended with code 1" in errors and "no such dtype" in errors


def leaves(code, *options):
    """Whether the command ends with that exit code, in this process."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as stopped:
            vllm_worker.main([str(option) for option in options])
    finally:
        signal.signal(signal.SIGTERM, before)
    return stopped.value.code == code


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ([], "either --vllm-bin or --base-url"),
        (["--vllm-bin", "/no/such/vllm"], "/no/such/vllm is no command"),
        (["--vllm-bin", "true", "--vllm-args=--port 5"], "must leave --port out"),
        (["--base-url", "http://x/v1", "--vllm-args=-q"], "--vllm-args needs --vllm-bin"),
        (["--base-url", "http://localhost:9/v1"], "http://localhost:9/v1: the server behind"),
    ],
)
def test_wrong_options_are_one_line_and_exit_code_2(checkpoint, capsys, options, part):
    assert leaves(2, "--model-path", checkpoint(), "--port", 0, *options)
    assert part in capsys.readouterr().err.strip().splitlines()[-1]
