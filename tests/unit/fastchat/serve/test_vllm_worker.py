"""The worker in front of an OpenAI-compatible server: our own, over a worker with a real model.

python -m pytest tests/unit/fastchat/serve/test_vllm_worker.py
"""

import contextlib
import itertools

import pytest
import requests

from fastchat.constants import ErrorCode, RequestError
from fastchat.protocol.worker_protocol import GenerateRequest
from fastchat.serve import base_model_worker, controller, openai_api_server, vllm_worker
from fastchat.serve.upstream.client import Completion, UpstreamClient
from fastchat.serve.upstream.worker import UpstreamJob
from tests.support.scripted_servers import OpenAI, chat_reply
from tests.support.servers import (
    ASK,
    CONTEXT,
    frames,
    in_front_of,
    post,
    register,
    running,
    wait_for,
)
from tests.support.serving import slow_down


@pytest.fixture(scope="module")
def base_url(controller_url):
    """Our own OpenAI server over that controller."""
    with running(openai_api_server.create_app(controller_url)) as url:
        yield f"{url}/v1"


@pytest.fixture(scope="module")
def outer(base_url, checkpoint):
    """The worker that asks the server."""
    return in_front_of(base_url, checkpoint())


@pytest.fixture(scope="module")
def url(outer):
    with running(base_model_worker.create_app(outer)) as address:
        yield address


def test_it_answers_as_the_worker_behind_the_server(url, worker_url):
    for body in (
        {**ASK, "temperature": 0},
        {**ASK, "temperature": 0, "n": 3},
        {**ASK, "n": 3, "seed": 4, "max_new_tokens": 30},
        {**ASK, "seed": 9, "top_k": 3, "echo": True},
        {**ASK, "top_p": 0},
        {**ASK, "max_new_tokens": 2 * CONTEXT, "temperature": 0},
        {**ASK, "temperature": 0, "presence_penalty": 1.5, "repetition_penalty": 1.3},
        {**ASK, "temperature": 0, "frequency_penalty": 0.9},
    ):
        reply = post(f"{url}/worker_generate", body)
        assert reply == post(f"{worker_url}/worker_generate", body)
        assert reply["error_code"] == 0


def test_greedy_samples_are_asked_for_once(url, worker):
    before = worker.engine.stats.generated_tokens
    body = {**ASK, "temperature": 0, "n": 4}
    reply = post(f"{url}/worker_generate", body)
    assert reply["text"] == 4 * reply["text"][:1]
    assert worker.engine.stats.generated_tokens - before == reply["completion_tokens"][0]
    assert frames(f"{url}/worker_generate_stream", body)[-1] == reply


def test_log_probabilities_pass(url, worker_url):
    for more in (
        {"logprobs": 2, "n": 2, "seed": 1},
        {"logprobs": 1, "echo": True, "temperature": 0, "stop": ["2?"]},
        {"logprobs": 0, "echo": True, "max_new_tokens": 0},
    ):
        body = {**ASK, **more}
        reply = post(f"{url}/worker_generate", body)
        expected = post(f"{worker_url}/worker_generate", body)
        assert told_of(reply) == [pytest.approx(one, abs=1e-4) for one in told_of(expected)]
        sent = frames(f"{url}/worker_generate_stream", body)
        streamed = zip(*map(told_of, sent), strict=True)
        assert [list(itertools.chain(*parts)) for parts in streamed] == told_of(reply)
        for one in (reply, expected, sent[-1]):
            del one["logprobs"]
        assert reply == expected == sent[-1]


def told_of(reply):
    told = reply["logprobs"]
    return [one["token_logprobs"] for one in (told if isinstance(told, list) else [told])]


def test_a_server_without_log_probabilities_or_without_the_prompts_text(outer):
    request = GenerateRequest(prompt="ab", logprobs=0, max_new_tokens=1)
    ids = outer.template.plain_prompt_ids("ab")
    (token,) = outer.template.plain_prompt_ids("a")
    columns = {name: [None] * 3 for name in ("token_logprobs", "top_logprobs")}
    told = {"tokens": ["a", "b", "a"], "text_offset": [0, 1, 2], **columns}
    for text in ("a", "aba"):
        job = UpstreamJob(request, ids, 1, "ab")
        choice = {"text": text, "token_ids": [token], "finish_reason": "length", "logprobs": told}
        job.take(Completion(choices=[choice]))
        assert job.reply(outer.template, final=True)["text"] == "aba"
    job = UpstreamJob(request, ids, 1, "ab")
    job.take(Completion(choices=[{**choice, "logprobs": None}]))
    with pytest.raises(RequestError, match="gives no log-probabilities"):
        job.reply(outer.template, final=True)


def test_stop_texts_and_tokens_end_an_answer(url, worker_url):
    body = {**ASK, "seed": 3, "max_new_tokens": 40}
    whole = post(f"{worker_url}/worker_generate", {**body, "return_token_ids": True})
    token = whole["token_ids"][0][9]
    for stop in ({"stop": whole["text"][10:12]}, {"stop_token_ids": [token]}):
        reply = post(f"{url}/worker_generate", {**body, **stop})
        assert reply == post(f"{worker_url}/worker_generate", {**body, **stop})
        assert reply["finish_reason"] == "stop" and len(reply["text"]) < len(whole["text"])


def test_a_stream_grows_and_ends_as_the_whole_answer(url):
    body = {**ASK, "seed": 5, "n": 2, "max_new_tokens": 20}
    sent = frames(f"{url}/worker_generate_stream", body)
    assert sent[-1] == post(f"{url}/worker_generate", body)
    assert len(sent) > 2
    for earlier, later in itertools.pairwise(sent):
        assert all(b.startswith(a) for a, b in zip(earlier["text"], later["text"], strict=True))
        assert earlier["finish_reason"] in (None, [None, None])


def test_what_does_not_fit_is_refused_before_the_server_hears_of_it(url, worker):
    asked = worker.engine.stats.prompt_tokens
    long = {"messages": [{"role": "user", "content": "word " * CONTEXT}]}
    assert post(f"{url}/worker_generate", long)["error_code"] == ErrorCode.CONTEXT_OVERFLOW
    (refusal,) = frames(f"{url}/worker_generate_stream", long)
    assert refusal["error_code"] == ErrorCode.CONTEXT_OVERFLOW
    assert worker.engine.stats.prompt_tokens == asked


def test_the_description_is_that_of_the_model(url, worker_url):
    for path in ("model_details", "worker_get_conv_template"):
        assert post(f"{url}/{path}") == post(f"{worker_url}/{path}")
    count = {"prompt": "Hello there"}
    assert post(f"{url}/count_token", count) == post(f"{worker_url}/count_token", count)
    assert "messages" in post(f"{url}/worker_get_status")["extensions"]


def test_token_ids_pass_unchanged(url, worker_url):
    body = {"prompt_token_ids": [5, 6, 7, 8], "temperature": 0, "max_new_tokens": 7}
    body["return_token_ids"] = True
    for one in (body, {"prompt": "Hello", "temperature": 0}):
        reply = post(f"{url}/worker_generate", one)
        assert reply == post(f"{worker_url}/worker_generate", one)


def test_a_client_that_hangs_up_stops_the_generation_behind_the_server(url, worker, monkeypatch):
    slow_down(worker, monkeypatch)
    generated = worker.engine.stats.generated_tokens
    body = {**ASK, "max_new_tokens": 180, "temperature": 0}
    for path in ("worker_generate", "worker_generate_stream"):
        with contextlib.suppress(requests.Timeout, requests.ConnectionError):
            reply = requests.post(f"{url}/{path}", json=body, stream=True, timeout=0.7)
            next(reply.iter_content(10))
            reply.close()
        wait_for(lambda: worker.in_flight == 0 and worker.engine.load()["running"] == 0)
    assert worker.engine.stats.generated_tokens - generated < 2 * 100


def test_the_server_says_what_it_serves_and_has_to_take_token_ids(outer, base_url, checkpoint):
    assert (outer.model, outer.context_length) == ("tiny-llama", CONTEXT)
    with (
        OpenAI(lambda _: chat_reply("4")) as server,
        pytest.raises(ValueError, match=r"without a worker, as teacher@http://127.*/v1$"),
    ):
        in_front_of(f"{server.url}/v1", checkpoint())
    with pytest.raises(ValueError, match="longer than the server's 200"):
        in_front_of(base_url, checkpoint(), "--context-length", "300")
    with pytest.raises(ValueError, match="--base-url http://localhost:9/v1: the server behind"):
        in_front_of("http://localhost:9/v1", checkpoint())


def test_errors_of_the_server_keep_their_meaning(worker, worker_url, checkpoint, monkeypatch):
    monkeypatch.setenv(vllm_worker.KEY_VARIABLE, "right")
    with running(controller.create_app()) as control, contextlib.ExitStack() as stack:
        register(control, worker_url, worker)
        app = openai_api_server.create_app(control, ["right"])
        outer = in_front_of(f"{stack.enter_context(running(app))}/v1", checkpoint())
        url = stack.enter_context(running(base_model_worker.create_app(outer)))
        assert post(f"{url}/worker_generate", ASK)["error_code"] == 0
        outer.client._headers = {"Authorization": "Bearer wrong"}
        reply = post(f"{url}/worker_generate", ASK)
        assert reply["error_code"] == ErrorCode.INCORRECT_AUTH_KEY
        assert "wrong" not in reply["text"].split("API key")[0]
        outer.client = UpstreamClient("http://localhost:9/v1")
        reply = post(f"{url}/worker_generate", ASK)
        assert reply["error_code"] == ErrorCode.CONTROLLER_WORKER_TIMEOUT
