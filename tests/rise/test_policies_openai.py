"""Requests to OpenAI-compatible servers, and where the key goes.

pytest tests/rise/test_policies_openai.py
"""

import asyncio
import json

import pytest
from aiohttp import web

from rise.keys import find_key
from rise.openai_policy import OpenAIPolicy
from rise.policies import PolicyError, Retries, Sample
from rise.serving import free_ports
from tests.rise.servers import OpenAI, chat_reply

MESSAGES = [{"role": "user", "content": "1+1?"}]
SETTINGS = {"temperature": 0.7, "top_p": 1.0, "max_new_tokens": 512, "problem": {}}


def ask(url, *, n=1, timeout=5.0, key="sk-secret"):
    retries = Retries(attempts=3, timeouts=2, first_wait=0.001)
    policy = OpenAIPolicy(
        "t",
        model="teacher",
        base_url=f"{url}/v1",
        key=key,
        request_timeout=timeout,
        retries=retries,
    )

    async def once():
        try:
            await policy.check()
            return await policy.sample(MESSAGES, n=n, seed=40, **SETTINGS)
        finally:
            await policy.close()

    return asyncio.run(once())


def test_request_and_samples():
    with OpenAI(lambda _: chat_reply("a", "b")) as server:
        assert ask(server.url, n=2) == [Sample("a", "stop", 7, 3), Sample("b", "stop", 7, 3)]
    assert server.requests == [
        {
            "model": "teacher",
            "messages": MESSAGES,
            "n": 2,
            "seed": 40,
            "temperature": 0.7,
            "top_p": 1.0,
            "max_tokens": 512,
        }
    ]
    assert server.headers[0]["Authorization"] == "Bearer sk-secret"


def test_server_that_ignores_n_is_asked_again_with_the_next_seeds():
    with OpenAI(lambda body: chat_reply(f"seed {body['seed']}")) as server:
        samples = ask(server.url, n=3)
    assert [sample.text for sample in samples] == ["seed 40", "seed 41", "seed 42"]


def error(status, code=None, message="no", headers=None):
    body = json.dumps({"error": {"message": message, "code": code}})
    return lambda _: web.Response(
        status=status, text=body, content_type="application/json", headers=headers
    )


@pytest.mark.parametrize(
    ("answer", "kind", "tries"),
    [
        (error(500), "server", 3),
        (error(429, headers={"Retry-After": "0.01"}), "overloaded", 3),
        (error(429, "insufficient_quota"), "quota", 1),
        (error(401), "unauthorized", 1),
        (error(400), "bad_request", 1),
        (error(400, "context_length_exceeded"), "context_overflow", 1),
        (lambda _: chat_reply(), "malformed", 1),
        (lambda _: chat_reply(None), "malformed", 1),
        (lambda _: chat_reply("half an answer", reason="content_filter"), "content_filter", 1),
    ],
)
def test_what_is_no_answer_is_a_typed_error(answer, kind, tries):
    with OpenAI(answer) as server:
        with pytest.raises(PolicyError) as caught:
            ask(server.url)
        assert caught.value.kind == kind
        assert len(server.requests) == tries


def test_server_that_hangs_is_a_timeout():
    with OpenAI(lambda _: 5.0) as server, pytest.raises(PolicyError) as caught:
        ask(server.url, timeout=0.2)
    assert caught.value.kind == "timeout"


def test_server_that_is_not_there_is_a_connection_error():
    with pytest.raises(PolicyError) as caught:
        ask(f"http://127.0.0.1:{free_ports(1)[0]}")
    assert caught.value.kind == "connection"


def test_no_message_repeats_the_key():
    refuse = error(401, message="Incorrect API key provided: sk-secret.")
    with OpenAI(refuse) as server, pytest.raises(PolicyError) as caught:
        ask(server.url)
    assert "sk-secret" not in str(caught.value) and "sk-..." in str(caught.value)


@pytest.mark.parametrize("line", ["KEY: 'sk-1'", 'KEY: "sk-1"', "KEY: sk-1", "  KEY = sk-1  "])
def test_key_is_read_from_keys_cfg(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KEY", raising=False)
    assert find_key("KEY") is None
    (tmp_path / "keys.cfg").write_text(f"OTHER_KEY: 'sk-0'\n{line}\n")
    assert find_key("KEY") == "sk-1"
    monkeypatch.setenv("KEY", "sk-2")
    assert find_key("KEY") == "sk-2"
