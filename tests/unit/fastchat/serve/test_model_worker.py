"""The worker's HTTP protocol, with the bodies that FastChat 0.2.36's clients send written by hand.

python -m pytest tests/unit/fastchat/serve/test_model_worker.py
"""

import json
import socket
from itertools import chain

import pytest
import requests
import torch

from fastchat.constants import ErrorCode
from fastchat.serve.base_model_worker import create_app
from tests.support.served import started
from tests.support.servers import frames, post, running, wait_for
from tests.support.serving import slow_down

HELLO = {"prompt": "Hello there", "temperature": 0, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def url(worker_url):
    return worker_url


def idle(worker):
    return worker.in_flight == 0 and worker.engine.load()["running"] == 0


def test_a_prompt_is_continued_as_generate_does(url, worker):
    ids = worker.tokenizer(HELLO["prompt"])["input_ids"]
    expected = worker.engine.model.model.generate(
        torch.tensor([ids]), max_new_tokens=6, do_sample=False, eos_token_id=None
    )[0, len(ids) :]
    reply = post(f"{url}/worker_generate", {**HELLO, "echo": False})
    assert reply["text"] == worker.tokenizer.decode(expected)
    assert post(f"{url}/worker_generate", HELLO)["text"] == HELLO["prompt"] + reply["text"]
    assert reply["error_code"] == 0
    assert reply["finish_reason"] == "length"
    prompt = len(ids)
    usage = {"prompt_tokens": prompt, "completion_tokens": 6, "total_tokens": prompt + 6}
    assert reply["usage"] == usage


def test_messages_are_rendered_with_the_models_template(url, worker):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    common = {"temperature": 0, "max_new_tokens": 8, "echo": False, "return_token_ids": True}
    by_messages = post(f"{url}/worker_generate", {"messages": messages, **common})
    ids = worker.template.prompt_ids(messages)
    by_ids = post(f"{url}/worker_generate", {"prompt_token_ids": ids, **common})
    assert by_messages == by_ids
    assert by_messages["prompt_token_ids"] == ids
    assert len(by_messages["token_ids"][0]) == 8


def test_several_samples_come_as_lists_and_repeat_with_their_seed(url):
    body = {**HELLO, "temperature": 1.0, "n": 4, "seed": 10, "echo": False}
    reply = post(f"{url}/worker_generate", body)
    assert reply == post(f"{url}/worker_generate", body)
    assert len(set(reply["text"])) == 4
    assert reply["finish_reason"] == ["length"] * 4
    assert reply["usage"]["completion_tokens"] == sum(reply["completion_tokens"]) == 24
    third = post(f"{url}/worker_generate", {**body, "n": 1, "seed": 12})
    assert third["text"] == reply["text"][2]
    assert post(f"{url}/worker_generate", {**body, "seed": None})["text"] != reply["text"]


def test_stop_texts_are_found_and_never_shown(url):
    body = {**HELLO, "max_new_tokens": 40, "temperature": 1.0, "seed": 3, "echo": False}
    whole = post(f"{url}/worker_generate", body)
    stop = whole["text"][10:12]
    for wanted in (stop, ["not there", stop, ""]):
        cut = post(f"{url}/worker_generate", {**body, "stop": wanted})
        assert cut["text"] == whole["text"][: whole["text"].index(stop)]
        assert cut["finish_reason"] == "stop"
        assert cut["usage"]["completion_tokens"] < whole["usage"]["completion_tokens"]
        sent = frames(f"{url}/worker_generate_stream", {**body, "stop": wanted})
        assert sent[-1] == cut
        assert all(cut["text"].startswith(message["text"]) for message in sent)


def test_stop_tokens_are_counted_and_not_part_of_the_text(url):
    body = {**HELLO, "max_new_tokens": 30, "temperature": 1.0, "seed": 4, "echo": False}
    whole = post(f"{url}/worker_generate", {**body, "return_token_ids": True})
    (tokens,) = whole["token_ids"]
    end = next(i for i, token in enumerate(tokens) if i > 5 and token not in tokens[:i])
    cut = post(f"{url}/worker_generate", {**body, "stop_token_ids": [tokens[end]]})
    assert cut["finish_reason"] == "stop"
    assert cut["usage"]["completion_tokens"] == end + 1
    assert whole["text"].startswith(cut["text"]) and cut["text"] != whole["text"]


def test_a_stream_grows_and_ends_as_the_plain_answer(url):
    body = {**HELLO, "max_new_tokens": 200, "temperature": 1.0, "seed": 5, "echo": False}
    messages = frames(f"{url}/worker_generate_stream", body)
    plain = post(f"{url}/worker_generate", body)
    assert len(messages) > 2
    assert messages[-1] == plain
    texts = [message["text"] for message in messages]
    assert all(plain["text"].startswith(text) for text in texts)
    assert [len(text) for text in texts] == sorted(len(text) for text in texts)
    assert all(m["finish_reason"] is None and m["error_code"] == 0 for m in messages[:-1])
    several = frames(f"{url}/worker_generate_stream", {**body, "n": 2})
    assert several[-1]["text"][0] == plain["text"]


def test_log_probabilities_come_in_the_form_of_stock_workers(url, worker):
    ids = worker.tokenizer(HELLO["prompt"])["input_ids"]
    body = {**HELLO, "logprobs": 1, "return_token_ids": True}
    reply = post(f"{url}/worker_generate", body)
    told, tokens = reply["logprobs"], [*ids, *reply["token_ids"][0]]
    assert set(told) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    assert "".join(told["tokens"][: len(ids)]) == HELLO["prompt"]
    assert told["text_offset"][len(ids)] == len(HELLO["prompt"])
    assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
    with torch.inference_mode():
        wanted = worker.engine.model.model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    for i, (token, logprob) in enumerate(zip(tokens, told["token_logprobs"], strict=True)):
        if i:
            assert logprob == pytest.approx(float(wanted[i - 1, token]), abs=1e-3)
    sent = frames(f"{url}/worker_generate_stream", {**body, "n": 2})
    for i in range(2):
        parts = (frame["logprobs"][i]["token_logprobs"] for frame in sent)
        assert list(chain(*parts)) == pytest.approx(told["token_logprobs"], abs=1e-4)
    silent = post(f"{url}/worker_generate", {**body, "echo": False})["logprobs"]
    assert silent["token_logprobs"] == pytest.approx(told["token_logprobs"][len(ids) :], abs=1e-4)
    scored = post(f"{url}/worker_generate", {**body, "max_new_tokens": 0})
    assert (scored["text"], scored["usage"]["completion_tokens"]) == (HELLO["prompt"], 0)
    prompt = scored["logprobs"]["token_logprobs"]
    assert prompt == pytest.approx(told["token_logprobs"][: len(ids)], abs=1e-4)
    assert scored["finish_reason"] == "length"


def test_the_body_of_the_stock_api_server_is_understood(url):
    """Every field that fschat 0.2.36's openai_api_server sends to a worker."""
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    body = {"model": "tiny-llama", "prompt": prompt, "echo": False, "stop": []}
    body |= {"temperature": 0.7, "top_p": 1.0, "top_k": -1, "max_new_tokens": 9}
    body |= {"presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0}
    body |= dict.fromkeys(("logprobs", "stop_token_ids", "best_of")) | {"use_beam_search": False}
    reply = post(f"{url}/worker_generate", body)
    assert reply["error_code"] == 0 and reply["usage"]["total_tokens"] > 0


def test_the_worker_describes_itself(url, worker):
    assert post(f"{url}/model_details") == {"context_length": 200}
    count = post(f"{url}/count_token", {"model": "tiny-llama", "prompt": "Hello there"})
    assert count == {"count": len(worker.tokenizer("Hello there")["input_ids"]), "error_code": 0}
    status = post(f"{url}/worker_get_status")
    assert status["model_names"] == ["tiny-llama"]
    assert status["speed"] == 1 and status["queue_length"] == 0


BAD = {
    "no prompt": ({}, ErrorCode.VALIDATION_TYPE_ERROR),
    "two prompts": ({**HELLO, "prompt_token_ids": [5]}, ErrorCode.VALIDATION_TYPE_ERROR),
    "temperature": ({**HELLO, "temperature": -1}, ErrorCode.PARAM_OUT_OF_RANGE),
    "no number": ({**HELLO, "temperature": "hot"}, ErrorCode.VALIDATION_TYPE_ERROR),
    "top_p": ({**HELLO, "top_p": 1.5}, ErrorCode.PARAM_OUT_OF_RANGE),
    "n": ({**HELLO, "n": 0}, ErrorCode.PARAM_OUT_OF_RANGE),
    "too many": ({**HELLO, "n": 10**6}, ErrorCode.PARAM_OUT_OF_RANGE),
    "max_new_tokens": ({**HELLO, "max_new_tokens": -1}, ErrorCode.PARAM_OUT_OF_RANGE),
    "no new token": ({**HELLO, "max_new_tokens": 0}, ErrorCode.VALIDATION_TYPE_ERROR),
    "unknown token": ({"prompt_token_ids": [5, 10**9]}, ErrorCode.PARAM_OUT_OF_RANGE),
    "empty prompt": ({"prompt": ""}, ErrorCode.PARAM_OUT_OF_RANGE),
    "empty messages": ({"messages": []}, ErrorCode.VALIDATION_TYPE_ERROR),
    "role": ({"messages": [{"role": "tool", "content": ""}]}, ErrorCode.VALIDATION_TYPE_ERROR),
    "half a character": ({"prompt": "\ud800"}, ErrorCode.VALIDATION_TYPE_ERROR),
    "penalty": ({**HELLO, "repetition_penalty": 0}, ErrorCode.PARAM_OUT_OF_RANGE),
    "beams": ({**HELLO, "use_beam_search": True}, ErrorCode.VALIDATION_TYPE_ERROR),
    "long scored prompt": (
        {"prompt": "x" * 400, "logprobs": 0, "max_new_tokens": 0},
        ErrorCode.CONTEXT_OVERFLOW,
    ),
    "long messages": (
        {"messages": [{"role": "user", "content": "word " * 200}]},
        ErrorCode.CONTEXT_OVERFLOW,
    ),
    "long ids": ({"prompt_token_ids": [5] * 200}, ErrorCode.CONTEXT_OVERFLOW),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_requests_get_an_error_code_and_no_text_to_train_on(url, worker, case):
    body, code = BAD[case]
    reply = post(f"{url}/worker_generate", body)
    assert reply["error_code"] == code and reply["text"]
    assert frames(f"{url}/worker_generate_stream", body) == [reply]
    assert worker.in_flight == 0


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b"\xff", b"[" * 100000])
def test_bodies_that_are_no_request_are_refused(url, raw):
    reply = requests.post(f"{url}/worker_generate", data=raw, timeout=30)
    assert reply.json()["error_code"] == ErrorCode.VALIDATION_TYPE_ERROR
    assert post(f"{url}/count_token", {})["error_code"] == ErrorCode.VALIDATION_TYPE_ERROR


def test_a_long_prompt_string_loses_its_beginning_and_messages_never_do(url, worker):
    prompt = "".join(chr(97 + i % 26) for i in range(400))
    body = {"max_new_tokens": 50, "temperature": 0, "return_token_ids": True}
    cut = post(f"{url}/worker_generate", {"prompt": prompt, **body})
    ids = worker.template.plain_prompt_ids(prompt)
    assert cut["prompt_token_ids"] == ids[-(200 - 50 - 1) :]
    kept = post(f"{url}/worker_generate", {"prompt_token_ids": ids[:180], **body})
    assert kept["prompt_token_ids"] == ids[:180]
    assert kept["usage"]["completion_tokens"] == 20
    assert kept["finish_reason"] == "length"


@pytest.mark.parametrize("endpoint", ["worker_generate", "worker_generate_stream"])
def test_a_client_that_hangs_up_stops_its_generation(url, worker, endpoint, monkeypatch):
    host, port = url.removeprefix("http://").split(":")
    body = b'{"prompt": "a", "max_new_tokens": 190, "n": 3, "temperature": 0}'
    whole = post(f"{url}/worker_generate", json.loads(body))
    assert whole["usage"]["completion_tokens"] == 3 * 190
    slow_down(worker, monkeypatch)
    head = f"POST /{endpoint} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        wait_for(lambda: worker.engine.load()["running"] == 3)
    generated = worker.engine.stats.generated_tokens
    wait_for(lambda: idle(worker))
    assert worker.engine.stats.generated_tokens - generated < 3 * 150


def test_the_workers_seed_is_used_by_requests_without_one(checkpoint):
    with started(checkpoint(), "--seed", "5") as seeded, running(create_app(seeded)) as address:
        body = {**HELLO, "temperature": 1.0, "n": 2}
        first = post(f"{address}/worker_generate", body)
        assert first == post(f"{address}/worker_generate", {**body, "seed": 5})
        assert first == post(f"{address}/worker_generate", body)
        assert first["text"][0] != first["text"][1]
