"""Requests to FastChat workers: what is sent, what is read, and what never becomes a text.

pytest tests/unit/rise/policies/test_worker.py
"""

import asyncio
import threading

import pytest
from aiohttp import web

from fastchat.client import workers
from fastchat.client.process import free_ports
from rise.policies.policy import PolicyError, Retries, Sample
from rise.policies.worker import WorkerPolicy, list_models
from rise.runs.arguments import controller_url
from tests.support.scripted_servers import Wire, wire_reply

MESSAGES = [{"role": "user", "content": "1+1?"}]
PAGE = "<!DOCTYPE html>\n<html><title>Oops</title><body>" + 99 * "<p>x</p>\n"
QUICK = Retries(attempts=3, timeouts=2, first_wait=0.001)


def ask(controller, *, n=1, times=1, timeout=5.0, retries=QUICK):
    """Ask `times` times, all at once, and return the samples of each answer."""
    policy = WorkerPolicy("student", controller, request_timeout=timeout, retries=retries)
    settings = {"temperature": 0.5, "top_p": 0.9, "max_new_tokens": 16, "problem": {}}

    async def all_at_once():
        try:
            return await asyncio.gather(
                *(policy.sample(MESSAGES, n=n, seed=40 + i, **settings) for i in range(times))
            )
        finally:
            await policy.close()

    return asyncio.run(all_at_once())


def test_a_controller_that_comes_back_elsewhere_is_found_by_its_file(tmp_path):
    file = tmp_path / "controller"
    file.write_text(f"http://127.0.0.1:{free_ports(1)[0]}\n")
    assert controller_url(str(file)) == str(file)
    with Wire(lambda _: wire_reply("there")) as wire:
        threading.Timer(0.2, file.write_text, [f"{wire.url}\n"]).start()
        waiting = Retries(attempts=2, first_wait=0.1, patience=5)
        assert ask(str(file), times=3, retries=waiting) == ask(wire.url, times=3)
        assert asyncio.run(list_models(str(file))) == ["student"]


def test_request_carries_messages_samples_and_seed():
    with Wire(lambda body: wire_reply(*"abc"[: body["n"]], reason="length")) as wire:
        [samples] = ask(wire.url, n=3)
        [single] = ask(wire.url)
    assert samples == [Sample(text, "length", 7, 3) for text in "abc"]
    assert single == [Sample("a", "length", 7, 3)]
    assert wire.requests[0] == {
        "model": "student",
        "messages": MESSAGES,
        "n": 3,
        "seed": 40,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_new_tokens": 16,
        "echo": False,
        "return_token_ids": True,
    }


def test_the_tokens_of_every_answer_are_kept_and_must_be_tokens():
    ids = [[5, 2], [7, 9, 2]]
    sent = {"token_ids": ids, "tokenizer": "t"}
    with Wire(lambda body: wire_reply(*"ab") | sent) as wire:
        [samples] = ask(wire.url, n=2)
        assert [(s.token_ids, s.tokenizer) for s in samples] == [(row, "t") for row in ids]
        for wrong in ([[5, 2]], [[5, -2], [2]], [5, 2], "ab", [[2**31], [2]]):
            sent["token_ids"] = wrong
            with pytest.raises(PolicyError, match="server"):
                ask(wire.url, n=2)


def test_address_is_asked_for_once_and_answers_come_straight_from_the_worker():
    with Wire(lambda _: wire_reply("a")) as worker, Wire(lambda _: wire_reply("no")) as controller:
        controller.worker_url = worker.url
        assert len(ask(controller.url, times=30)) == 30
        assert controller.paths == ["/get_worker_address"] * (1 + workers.ASKS)
        assert worker.paths == ["/worker_get_status"]
        assert controller.requests == [] and len(worker.requests) == 30


def test_usage_of_a_worker_that_reports_the_sum_is_shared_out():
    reply = wire_reply("a", "b")
    del reply["completion_tokens"]
    reply["usage"]["completion_tokens"] = 5
    with Wire(lambda _: reply) as wire:
        [samples] = ask(wire.url, n=2)
    assert [sample.completion_tokens for sample in samples] == [3, 2]


@pytest.mark.parametrize(
    ("reply", "kind", "tries"),
    [
        ({"text": "**NETWORK ERROR**", "error_code": 50001}, "server", 3),
        ({"text": "**NETWORK ERROR**", "error_code": 50005}, "no_worker", 3),
        ({"text": "x", "error_code": 50006}, "timeout", 2),
        ({"text": "too long", "error_code": 40303}, "context_overflow", 1),
        ({"text": "x", "error_code": 40001}, "bad_request", 1),
        ({"text": "x", "error_code": 42901}, "overloaded", 3),
        (web.Response(status=500, text="boom"), "server", 3),
        (web.Response(status=429), "overloaded", 3),
        (web.Response(status=400), "bad_request", 1),
        (web.Response(status=401), "unauthorized", 1),
        (web.Response(status=400, text='{"text": "", "error_code": 40303}'), "context_overflow", 1),
        (web.Response(text=PAGE), "server", 3),
        (web.Response(text=PAGE, status=404), "server", 3),
        (web.Response(status=302, headers={"Location": "http://localhost:1"}), "server", 3),
        (wire_reply("a", "b"), "server", 3),
        (wire_reply("a", reason="abort"), "server", 3),
        ({"text": None, "error_code": 0}, "server", 3),
        ({**wire_reply("a"), "completion_tokens": [-1]}, "server", 3),
        ({**wire_reply("a"), "usage": {"prompt_tokens": float("nan")}}, "server", 3),
        ({**wire_reply("a"), "error_code": "none"}, "server", 3),
        (web.Response(text="[" * 100_000), "server", 3),
    ],
)
def test_what_is_no_answer_is_a_typed_error(reply, kind, tries):
    def answer(_):
        # A response object can be sent once, so every request gets its own.
        if isinstance(reply, web.Response):
            headers = {name: reply.headers[name] for name in reply.headers if name == "Location"}
            return web.Response(status=reply.status, body=reply.body, headers=headers)
        return reply

    with Wire(answer) as wire:
        with pytest.raises(PolicyError) as caught:
            ask(wire.url)
        assert caught.value.kind == kind
        assert len(wire.requests) == tries
        [said] = caught.value.message.splitlines()
        http = reply if isinstance(reply, web.Response) else web.Response()
        assert ("the address" in said) == (http.status == 302 or http.text == PAGE)
        assert len(said) < 250


def test_trouble_that_passes_is_not_seen():
    replies = [web.Response(status=503), {"text": "x", "error_code": 50002}, wire_reply("fine")]
    with Wire(lambda _: replies.pop(0)) as wire:
        assert ask(wire.url)[0][0].text == "fine"


def test_worker_that_hangs_is_a_timeout():
    with Wire(lambda _: 5.0) as wire, pytest.raises(PolicyError) as caught:
        ask(wire.url, timeout=0.1)
    assert caught.value.kind == "timeout"


def test_a_stock_worker_is_one_error_that_says_what_to_do():
    class Stock(Wire):
        async def _status(self, request):
            return web.json_response({"model_names": self.served, "speed": 1, "queue_length": 0})

    with (
        Stock(lambda _: wire_reply("a")) as wire,
        pytest.raises(PolicyError, match="stock FastChat.* student@http://HOST:8000/v1") as caught,
    ):
        ask(wire.url)
    assert caught.value.kind == "bad_request" and wire.requests == []
