"""The commands as processes: they find each other again, and say in one line what is wrong.

python -m pytest tests/processes/test_commands.py
"""

import signal
import socket
import subprocess
import sys

import pytest
import requests
import torch

from fastchat.serve import controller, model_worker
from tests.support.servers import ENVIRONMENT, frames, free_port, post, process, wait_for
from tests.support.tiny import save_tiny_model


def test_workers_come_back_after_their_controller_and_leave_when_killed(checkpoint):
    port = free_port()
    url = f"http://localhost:{port}"
    options = ["--model-path", checkpoint(), "--port", 0, "--controller-address", port]
    with process("fastchat.serve.model_worker", *options, "--num-threads", 1) as worker:
        with process("fastchat.serve.controller", "--port", port) as first:
            wait_for(lambda: post(f"{url}/list_models")["models"] == ["tiny-llama"])
            body = {"model": "tiny-llama", "prompt": "Hi", "max_new_tokens": 4, "temperature": 0}
            before = frames(f"{url}/worker_generate_stream", body)
            first.send_signal(signal.SIGINT)
            assert first.wait(120) == 130
        with process("fastchat.serve.controller", "--port", port):
            wait_for(lambda: post(f"{url}/list_models")["models"] == ["tiny-llama"])
            after = frames(f"{url}/worker_generate_stream", body)
            assert after[-1] == before[-1] and after[-1]["error_code"] == 0
            worker.kill()
            worker.wait()
            assert post(f"{url}/get_worker_address", {"model": "tiny-llama"}) == {"address": ""}


def test_a_worker_ends_on_ctrl_c_while_it_generates(checkpoint):
    port = free_port()
    options = ["--model-path", checkpoint(), "--port", port, "--no-register"]
    with process("fastchat.serve.model_worker", *options) as worker:
        url = f"http://localhost:{port}"

        wait_for(lambda: post(f"{url}/worker_get_status"))
        body = {"prompt": "Hi", "max_new_tokens": 2000, "n": 8}
        stream = requests.post(f"{url}/worker_generate_stream", json=body, stream=True, timeout=120)
        next(stream.iter_content(10))
        worker.send_signal(signal.SIGINT)
        assert worker.wait(120) == 130


def test_graders_and_servers_without_a_model_need_little(checkpoint):
    code = """if True:
        import sys, envs, math
        assert math.sqrt(4) == 2
        assert not {"sympy", "math_verify", "torch"} & {*sys.modules}
        import fastchat.serve.controller, fastchat.serve.openai_api_server
        assert not {"torch", "transformers"} & {*sys.modules}
        sys.modules["torch"] = None
        import fastchat.serve.vllm_worker as worker
        worker.main(sys.argv[1:])
    """
    options = ["--model-path", checkpoint(), "--base-url", "http://localhost:9/v1", "--port", "0"]
    command = [sys.executable, "-c", code, *map(str, options)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2 and "the server behind the worker failed" in done.stderr


@pytest.mark.parametrize("port", ["taken", 99999])
def test_a_port_that_cannot_be_had_is_one_line_and_exit_code_2(capsys, port):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1] if port == "taken" else port
        with pytest.raises(SystemExit) as stopped:
            controller.main(["--port", str(port)])
    line = capsys.readouterr().err.strip().splitlines()[-1]
    said = "--port 99999 is no port" if port == 99999 else f"cannot listen on localhost:{port}"
    assert stopped.value.code == 2 and said in line and "--port" in line


def test_a_checkpoint_without_a_template_names_the_option_and_the_built_in_ones(tmp_path, capsys):
    save_tiny_model(tmp_path / "plain", installed=False)
    line = refusal(capsys, "--model-path", tmp_path / "plain")
    assert all(word in line for word in ("--chat-template", "llama-2", "chatml", "zephyr"))
    assert "config.json" in refusal(capsys, "--model-path", tmp_path)
    missing = tmp_path / "nowhere"
    assert f"there is no directory '{missing}'" in refusal(capsys, "--model-path", missing)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--host", "0.0.0.0"], "--worker-address"),
        (["--host", "no such host"], "is no address"),
        (["--port", "x"], "'x'"),
        (["--context-length", 99999], "--context-length 99999 is longer"),
        (["--device", "quantum"], "unknown device 'quantum'"),
        (["--conv-template", "vicuna"], "unknown chat template 'vicuna'"),
        (["--limit-worker-concurrency", 0], "above 0"),
        *((["--gpu-memory-fraction", x], "at most 1") for x in ("0", "1.01", "-1", "nan", "all")),
    ],
)
def test_wrong_options_are_one_line_and_exit_code_2(checkpoint, capsys, options, part):
    assert part in refusal(capsys, "--model-path", checkpoint(), *options)


@pytest.mark.parametrize("place", ["torch.nn.Module.to", "fastchat.serve.engine.engine.KVPool"])
@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: out of memory")],
)
def test_a_model_without_room_on_the_gpu_is_one_line(checkpoint, capsys, monkeypatch, place, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(place, full)
    line = refusal(capsys, "--model-path", checkpoint(), "--device", "cpu")
    assert f"{checkpoint()} does not fit into the free memory of cpu" in line
    assert "--gpu-memory-fraction" in line


def refusal(capsys, *options):
    """The last line of a worker that refuses to start, in this process."""
    with pytest.raises(SystemExit) as stopped:
        model_worker.main([*map(str, options), "--port", "0"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("error:") == 1 and "usage" not in said
    return said.strip().splitlines()[-1]
