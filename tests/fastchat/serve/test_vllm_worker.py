"""The worker in front of OpenAI-compatible servers: ours, transformers' own, and one like vLLM's.

    python -m pytest tests/fastchat/serve/test_vllm_worker.py

vLLM needs a GPU, so a small command stands in for it: it takes the command line of `vllm serve` and
is a server with a child of its own, in front of a real model through our own OpenAI server.
"""

import contextlib
import importlib.util
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import time

import openai
import pytest
import requests
import torch

from fastchat.constants import ErrorCode
from fastchat.conversation import ChatTemplate
from fastchat.model.model_adapter import load_model, load_tokenizer
from fastchat.serve import (
    base_model_worker,
    controller,
    model_worker,
    openai_api_server,
    vllm_worker,
)
from fastchat.serve.upstream_client import UpstreamClient
from tests.fastchat.serve.servers import (
    ENVIRONMENT,
    frames,
    free_port,
    post,
    process,
    running,
    wait_for,
)
from tests.fastchat.serve.test_openai_api_server import register
from tests.tiny import save_tiny_model

ASK = {"messages": [{"role": "user", "content": "2 + 2?"}], "echo": False, "max_new_tokens": 12}
CONTEXT = 200
LOGGER = logging.getLogger("test")


@pytest.fixture(scope="module")
def inner(checkpoint):
    """The worker that computes."""
    options = ["--model-path", str(checkpoint()), "--device", "cpu"]
    args = model_worker.parse_args([*options, "--context-length", str(CONTEXT)])
    worker = model_worker.build_worker(args, LOGGER)
    worker.engine.start()
    yield worker
    worker.engine.stop()


@pytest.fixture(scope="module")
def inner_url(inner):
    with running(base_model_worker.create_app(inner)) as url:
        yield url


@pytest.fixture(scope="module")
def control(inner, inner_url):
    """The controller of the worker that computes."""
    with running(controller.create_app()) as url:
        register(url, inner_url, inner)
        yield url


@pytest.fixture(scope="module")
def base_url(control):
    """Our own OpenAI server over that controller."""
    with running(openai_api_server.create_app(control)) as url:
        yield f"{url}/v1"


def in_front_of(base_url, checkpoint, *options):
    command = ["--model-path", str(checkpoint()), "--base-url", base_url, *options]
    args = vllm_worker.parse_args(command)
    template = ChatTemplate(load_tokenizer(args.model_path))
    return vllm_worker.build_worker(args, base_url, template, LOGGER)


@pytest.fixture(scope="module", params=["tokens", "chat"])
def outer(request, base_url, checkpoint):
    """The worker that asks the server."""
    return in_front_of(base_url, checkpoint, "--api", request.param)


@pytest.fixture(scope="module")
def url(outer):
    with running(base_model_worker.create_app(outer)) as address:
        yield address


def test_it_answers_as_the_worker_behind_the_server(url, inner_url):
    for body in (
        {**ASK, "temperature": 0},
        {**ASK, "n": 3, "seed": 4, "max_new_tokens": 30},
        {**ASK, "seed": 9, "top_k": 3, "echo": True},
        {**ASK, "top_p": 0},
        {**ASK, "max_new_tokens": 2 * CONTEXT, "temperature": 0},
    ):
        reply = post(f"{url}/worker_generate", body)
        assert reply == post(f"{inner_url}/worker_generate", body)
        assert reply["error_code"] == 0


def test_stop_texts_and_tokens_end_an_answer(url, inner_url):
    body = {**ASK, "seed": 3, "max_new_tokens": 40}
    whole = post(f"{inner_url}/worker_generate", {**body, "return_token_ids": True})
    token = whole["token_ids"][0][9]
    for stop in ({"stop": whole["text"][10:12]}, {"stop_token_ids": [token]}):
        reply = post(f"{url}/worker_generate", {**body, **stop})
        assert reply == post(f"{inner_url}/worker_generate", {**body, **stop})
        assert reply["finish_reason"] == "stop" and len(reply["text"]) < len(whole["text"])


def test_a_stream_grows_and_ends_as_the_whole_answer(url):
    body = {**ASK, "seed": 5, "n": 2, "max_new_tokens": 20}
    sent = frames(f"{url}/worker_generate_stream", body)
    assert sent[-1] == post(f"{url}/worker_generate", body)
    assert len(sent) > 5
    for earlier, later in itertools.pairwise(sent):
        assert all(b.startswith(a) for a, b in zip(earlier["text"], later["text"], strict=True))
        assert earlier["finish_reason"] in (None, [None, None])


def test_what_does_not_fit_is_refused_before_the_server_hears_of_it(url, inner):
    asked = inner.engine.stats.prompt_tokens
    long = {"messages": [{"role": "user", "content": "word " * CONTEXT}]}
    assert post(f"{url}/worker_generate", long)["error_code"] == ErrorCode.CONTEXT_OVERFLOW
    (refusal,) = frames(f"{url}/worker_generate_stream", long)
    assert refusal["error_code"] == ErrorCode.CONTEXT_OVERFLOW
    assert inner.engine.stats.prompt_tokens == asked


def test_the_description_is_that_of_the_model(url, inner_url):
    for path in ("model_details", "worker_get_conv_template"):
        assert post(f"{url}/{path}") == post(f"{inner_url}/{path}")
    count = {"prompt": "Hello there"}
    assert post(f"{url}/count_token", count) == post(f"{inner_url}/count_token", count)
    assert "messages" in post(f"{url}/worker_get_status")["extensions"]


def test_token_ids_pass_unchanged_and_need_a_server_that_takes_them(url, outer, inner_url):
    body = {"prompt_token_ids": [5, 6, 7, 8], "temperature": 0, "max_new_tokens": 7}
    body["return_token_ids"] = True
    for one in (body, {"prompt": "Hello", "temperature": 0}):
        reply = post(f"{url}/worker_generate", one)
        if outer.abilities.takes_ids:
            assert reply == post(f"{inner_url}/worker_generate", one)
        else:
            assert reply["error_code"] == ErrorCode.VALIDATION_TYPE_ERROR
            assert "send messages" in reply["text"]


def test_a_client_that_hangs_up_stops_the_generation_behind_the_server(url, inner, monkeypatch):
    forward = inner.engine.model.forward

    def slowly(*args):
        time.sleep(0.03)
        return forward(*args)

    monkeypatch.setattr(inner.engine.model, "forward", slowly)
    generated = inner.engine.stats.generated_tokens
    body = {**ASK, "max_new_tokens": 180, "temperature": 0}
    for path in ("worker_generate", "worker_generate_stream"):
        with contextlib.suppress(requests.Timeout, requests.ConnectionError):
            reply = requests.post(f"{url}/{path}", json=body, stream=True, timeout=0.7)
            next(reply.iter_content(10))
            reply.close()
        wait_for(lambda: inner.in_flight == 0 and inner.engine.load()["running"] == 0)
    assert inner.engine.stats.generated_tokens - generated < 2 * 100


def test_a_server_that_takes_token_ids_is_recognized(base_url, checkpoint):
    worker = in_front_of(base_url, checkpoint)
    assert worker.abilities.takes_ids and worker.abilities.model == "tiny-llama"
    assert worker.context_length == CONTEXT
    with pytest.raises(ValueError, match="longer than the server's 200"):
        in_front_of(base_url, checkpoint, "--context-length", "300")
    with pytest.raises(ValueError, match="--base-url http://localhost:9/v1: the server behind"):
        in_front_of("http://localhost:9/v1", checkpoint)


def test_errors_of_the_server_keep_their_meaning(inner, inner_url, checkpoint, monkeypatch):
    monkeypatch.setenv(vllm_worker.KEY_VARIABLE, "right")
    with running(controller.create_app()) as control, contextlib.ExitStack() as stack:
        register(control, inner_url, inner)
        app = openai_api_server.create_app(control, ["right"])
        worker = in_front_of(f"{stack.enter_context(running(app))}/v1", checkpoint)
        url = stack.enter_context(running(base_model_worker.create_app(worker)))
        assert post(f"{url}/worker_generate", ASK)["error_code"] == 0
        worker.client._headers = {"Authorization": "Bearer wrong"}
        reply = post(f"{url}/worker_generate", ASK)
        assert reply["error_code"] == ErrorCode.INCORRECT_AUTH_KEY
        assert "wrong" not in reply["text"].split("API key")[0]
        worker.client = UpstreamClient("http://localhost:9/v1")
        reply = post(f"{url}/worker_generate", ASK)
        assert reply["error_code"] == ErrorCode.CONTROLLER_WORKER_TIMEOUT


def test_the_openai_server_works_over_this_worker_too(outer, url, inner_url):
    with running(controller.create_app()) as control:
        register(control, url, outer)
        with running(openai_api_server.create_app(control)) as api:
            client = openai.OpenAI(base_url=f"{api}/v1", api_key="any", max_retries=0)
            reply = client.chat.completions.create(
                model="tiny-llama", messages=ASK["messages"], n=2, seed=8, max_tokens=12
            )
            client.close()
    expected = post(f"{inner_url}/worker_generate", {**ASK, "n": 2, "seed": 8})
    assert [choice.message.content for choice in reply.choices] == expected["text"]
    assert reply.usage.model_dump(exclude_none=True) == expected["usage"]


STAND_IN = """#!{python}
import subprocess, sys
from fastchat.serve import openai_api_server

command, model, *options = sys.argv[1:]
print(command, model, flush=True)
if "broken" in options:
    sys.exit("no such dtype")
print("helper", subprocess.Popen(["sleep", "600"]).pid, flush=True)
openai_api_server.main(options)
"""


@pytest.fixture
def stand_in(tmp_path):
    command = tmp_path / "vllm"
    command.write_text(STAND_IN.format(python=sys.executable))
    command.chmod(0o755)
    return command


def alive(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def helper_of(log):
    lines = log.read_text().splitlines()
    return int(next(line for line in lines if line.startswith("helper")).split()[1])


def server_of(worker):
    children = f"/proc/{worker.pid}/task/{worker.pid}/children"
    with open(children) as file:
        return int(file.read().split()[0])


@pytest.mark.parametrize("ending", ["asked", "killed", "server died"])
def test_a_started_server_lives_as_long_as_its_worker(stand_in, control, checkpoint, ending):
    port, log = free_port(), stand_in.with_name("log")
    options = ["--model-path", checkpoint(), "--vllm-bin", stand_in, "--vllm-log", log]
    options.append(f"--vllm-args=--controller-address {control}")
    with process("fastchat.serve.vllm_worker", *options, "--port", port, "--no-register") as worker:
        url = f"http://localhost:{port}"
        details = wait_for(lambda: answer_of(worker, url), 120)
        assert details == {"context_length": CONTEXT}
        server, helper = server_of(worker), helper_of(log)
        assert alive(server) and alive(helper)
        if ending == "asked":
            reply = post(f"{url}/worker_generate", {**ASK, "n": 2, "return_token_ids": True})
            assert reply["error_code"] == 0 and len(reply["token_ids"]) == 2
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


def answer_of(worker, url):
    assert worker.poll() is None, worker.stderr.read()
    # The port is taken long before the server behind it is ready.
    with contextlib.suppress(requests.RequestException):
        return post(f"{url}/model_details")


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


def test_it_needs_no_torch(checkpoint):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import fastchat.serve.vllm_worker as worker\n"
        "worker.main(sys.argv[1:])"
    )
    options = ["--model-path", checkpoint(), "--base-url", "http://localhost:9/v1", "--port", 0]
    command = [sys.executable, "-c", code, *map(str, options)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "the server behind the worker failed" in done.stderr


NEEDED = ("openai", "typer", "rich")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"transformers serve needs {', '.join(MISSING)}")
def test_transformers_serve_is_served(tmp_path):
    directory = save_tiny_model(tmp_path / "tiny")
    config = directory / "generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "do_sample": True}))
    port = free_port()
    serve = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(directory)]
    command = [*serve, "--device", "cpu", "--port", str(port)]
    environment = {**ENVIRONMENT, "HF_HOME": str(tmp_path / "hub")}
    log = (tmp_path / "serve.log").open("w")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        base_url = f"http://localhost:{port}/v1"
        wait_for(lambda: healthy(server, f"http://localhost:{port}"), 120)
        worker = in_front_of(base_url, lambda: directory)
        assert not worker.abilities.takes_ids and worker.context_length == 2048
        with running(base_model_worker.create_app(worker)) as url:
            compare(url, worker.template, directory)
    finally:
        server.kill()
        server.wait()
        log.close()


def compare(url, template, directory):
    """Greedy answers through the server are those of `generate`; seeds repeat."""
    greedy = {**ASK, "temperature": 0, "max_new_tokens": 20}
    ids = template.prompt_ids(ASK["messages"])
    expected = load_model(directory, device="cpu").generate(
        torch.tensor([ids]), max_new_tokens=20, do_sample=False
    )[0, len(ids) :]
    text = template.tokenizer.decode(expected, skip_special_tokens=True)
    reply = post(f"{url}/worker_generate", greedy)
    assert reply["text"] == text
    assert reply["completion_tokens"] == [len(expected)]
    assert reply["usage"]["prompt_tokens"] == len(ids)
    assert frames(f"{url}/worker_generate_stream", greedy)[-1] == reply
    stop = text[4:6]
    cut = post(f"{url}/worker_generate", {**greedy, "stop": stop})
    assert cut["text"] == text[: text.index(stop)] and cut["finish_reason"] == "stop"
    seeded = {**ASK, "seed": 3}
    one = post(f"{url}/worker_generate", seeded)
    assert one == post(f"{url}/worker_generate", seeded)
    assert one["text"] != post(f"{url}/worker_generate", {**ASK, "seed": 4})["text"]
    several = post(f"{url}/worker_generate", {**ASK, "n": 2, "seed": 3})
    assert len(several["text"]) == 2 and several["usage"]["completion_tokens"] > 2
    refused = post(f"{url}/worker_generate", {**ASK, "top_k": 5})
    assert refused["error_code"] == ErrorCode.VALIDATION_TYPE_ERROR and "top_k" in refused["text"]


def healthy(server, url):
    assert server.poll() is None, server.returncode
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"{url}/health", timeout=5).ok
