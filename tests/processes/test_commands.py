"""The commands as processes: they find each other again, end when told, and load what they need.

python -m pytest tests/processes/test_commands.py
"""

import signal
import sys

import requests

from tests.support.servers import ENVIRONMENT, frames, free_port, post, process, wait_for
from tests.support.stages import run_program


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
    done = run_program(sys.executable, "-c", code, *options, env=ENVIRONMENT, code=2)
    assert "the server behind the worker failed" in done.stderr
