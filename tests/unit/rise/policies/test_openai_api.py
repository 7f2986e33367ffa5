"""Requests to OpenAI-compatible servers, and where the key goes.

pytest tests/unit/rise/policies/test_openai_api.py
"""

import asyncio
import datetime
import json

import pytest
from aiohttp import web

from fastchat.client.process import free_ports
from rise.policies import openai_api
from rise.policies.keys import find_key
from rise.policies.openai_api import OpenAIPolicy
from rise.policies.policy import PolicyError, Retries, Sample
from tests.support.scripted_servers import OpenAI, chat_reply

MESSAGES = [{"role": "user", "content": "1+1?"}]
SETTINGS = {"temperature": 0.7, "top_p": 1.0, "max_new_tokens": 512, "problem": {}}


def ask(url, *, n=1, timeout=5.0, key="sk-secret", needs_usage=False, **settings):
    retries = Retries(attempts=3, timeouts=2, overloads=3, first_wait=0.001)
    policy = OpenAIPolicy(
        "t",
        model="teacher",
        base_url=f"{url}/v1",
        key=key,
        request_timeout=timeout,
        retries=retries,
        needs_usage=needs_usage,
    )

    async def once():
        try:
            await policy.check()
            return await policy.sample(MESSAGES, n=n, seed=40, **SETTINGS | settings)
        finally:
            await policy.close()

    return asyncio.run(once())


def test_request_and_samples():
    with OpenAI(lambda _: chat_reply("a", "b")) as server:
        assert ask(server.url, n=2) == [
            Sample("a", "stop", 7, 3, place=0),
            Sample("b", "stop", 7, 3, place=1),
        ]
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


def flat_error(message):
    """The body of vLLM before 0.10: its fields are not in "error", and its code is a number."""
    body = {"object": "error", "message": message, "type": "BadRequestError", "code": 400}
    return lambda _: web.json_response(body, status=400)


def test_greedy_answers_are_asked_for_once_and_paid_once():
    with OpenAI(lambda _: chat_reply("a")) as server:
        samples = ask(server.url, n=3, temperature=0.0)
    assert [(s.text, s.place, s.completion_tokens) for s in samples] == [
        ("a", 0, 3),
        ("a", 1, 0),
        ("a", 2, 0),
    ]
    [body] = server.requests
    assert "n" not in body and body["temperature"] == 0.0


def test_where_the_temperature_is_refused_greedy_answers_are_drawn():
    def answer(body):
        if "temperature" in body:
            return error(400, message="temperature is not supported with this model")(body)
        return chat_reply(*"a" * body.get("n", 1))

    with OpenAI(answer) as server:
        samples = ask(server.url, n=3, temperature=0.0)
    assert [sample.place for sample in samples] == [0, 1, 2]
    drawn = sum(body.get("n", 1) for body in server.requests if "temperature" not in body)
    assert drawn == 3


VLLM_2 = (
    "This model's maximum context length is 4096 tokens. However, you requested {} output tokens "
    "and your prompt contains at least {} input tokens, for a total of at least 4097 tokens."
)


@pytest.mark.parametrize(
    ("words", "room"),
    [
        ("max_tokens={} cannot be greater than max_model_len=4096.", 4095),
        ("maximum context length is 4096 tokens. You requested {} (96 in the messages", 4000),
        (
            "max_tokens is too large: {}. The maximum context length is 4096 tokens and your "
            "request has 96 input tokens",
            4000,
        ),
        ("prompt is 96 tokens long, {}: maximum supported sequence length is just 4096", 4000),
        (
            "maximum context length of 4096 tokens. You requested {} for the completion: 96 tokens "
            "from the input messages",
            4000,
        ),
    ],
)
def test_an_answer_gets_what_the_context_leaves_and_that_is_said_once(words, room, caplog):
    def answer(body):
        if body["max_tokens"] > room:
            return flat_error(words.format(body["max_tokens"]))(body)
        return chat_reply("a")

    with OpenAI(answer) as server:
        assert ask(server.url, max_new_tokens=5000)[0].text == "a"
    assert [body["max_tokens"] for body in server.requests] == [5000, room]
    assert len([r for r in caplog.records if "no room for 5000 new tokens" in r.message]) == 1


def test_a_server_that_does_not_count_to_the_end_is_asked_for_less_until_it_fits():
    def answer(body):
        wanted, prompt = body["max_tokens"], 3000
        seen = min(prompt, 4096 - wanted + 1)
        return flat_error(VLLM_2.format(wanted, seen))(body) if seen < prompt else chat_reply("a")

    with OpenAI(answer) as server:
        assert ask(server.url, max_new_tokens=4000)[0].text == "a"
    assert [body["max_tokens"] for body in server.requests] == [4000, 1999, 999]


def test_a_vllm_gives_the_tokens_that_it_samples_and_its_context_bounds_them():
    def answer(body):
        reply = chat_reply("a", "b")
        for choice, ids in zip(reply["choices"], ([5, 6], [7, 8]), strict=True):
            choice["token_ids"] = ids
        return reply

    with OpenAI(answer, context=100) as server:
        samples = ask(server.url, n=2)
        assert [sample.token_ids for sample in samples] == [[5, 6], [7, 8]]
        [body] = server.requests
        assert body["return_token_ids"] is True and body["max_tokens"] == 99


@pytest.mark.parametrize(("owner", "day"), [("vllm", "2026-03-04"), ("fastchat", None)])
def test_the_day_is_that_of_who_renders_the_dialogue(owner, day, monkeypatch):
    class Today(datetime.date):
        @classmethod
        def today(cls):
            return cls(2026, 3, 4)

    monkeypatch.setattr(openai_api.datetime, "date", Today)
    with OpenAI(lambda _: chat_reply("a")) as server:
        server.card["owned_by"] = owner
        policy = OpenAIPolicy("t", model="teacher", base_url=f"{server.url}/v1", key="none")
        asyncio.run(policy.check())
        assert (policy.day("2026-01-02"), policy.day(None)) == (day, None)


def test_a_server_that_hangs_or_is_not_there_is_a_typed_error():
    with OpenAI(lambda _: 5.0) as server, pytest.raises(PolicyError) as caught:
        ask(server.url, timeout=0.2)
    assert caught.value.kind == "timeout"
    with pytest.raises(PolicyError) as caught:
        ask(f"http://127.0.0.1:{free_ports(1)[0]}")
    assert caught.value.kind == "connection"


@pytest.mark.parametrize("code", [301, 302, 307, 308])
@pytest.mark.parametrize("place", ["http://127.0.0.1:9/v2", "/v1/chat", "/login", None])
def test_a_redirect_that_leads_to_no_answer_ends_the_run_and_is_named(place, code):
    moved = {"Location": place} if place else {}
    with (
        OpenAI(lambda _: web.Response(status=code, headers=moved)) as server,
        pytest.raises(PolicyError) as caught,
    ):
        ask(server.url)
    assert caught.value.kind == "not_found" and len(server.requests) == 1
    words = f"{place}: give the address that answers itself" if place else f"answered HTTP {code}"
    assert words in caught.value.message
    with OpenAI(lambda _: chat_reply("a")) as far:
        place = f"{far.url}/v1/chat/completions"
        away = lambda _: web.Response(status=308, headers={"Location": place})  # noqa: E731
        with OpenAI(away) as server:
            assert ask(server.url)[0].text == "a"


@pytest.mark.parametrize("key", ["sk-secret", "quite=another+form/of.key"])
def test_no_message_repeats_the_key(key):
    refuse = error(401, message=f"Incorrect API key provided: {key}. {'x' * 480} {key}")
    with OpenAI(refuse) as server, pytest.raises(PolicyError) as caught:
        ask(server.url, key=key)
    assert key[:9] not in str(caught.value) and "Incorrect API key" in str(caught.value)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_openai_api_is_not_told_its_own_defaults(temperature, monkeypatch):
    async def once():
        policy = OpenAIPolicy("o3", model="o3", base_url=None, key="sk-secret")
        try:
            settings = SETTINGS | {"temperature": temperature}
            return await policy.sample(MESSAGES, n=1, seed=40, **settings)
        finally:
            await policy.close()

    with OpenAI(lambda _: chat_reply("a")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        assert asyncio.run(once())[0].text == "a"
    (request,) = server.requests
    told = {"temperature": 0.7} if temperature != 1 else {}
    assert {key: request[key] for key in ("temperature", "top_p") if key in request} == told
    assert request["max_completion_tokens"] == 512 and "max_tokens" not in request


def test_tokens_of_attempts_that_gave_no_answer_are_counted():
    replies = [chat_reply("a"), error(500)(None), chat_reply("b"), chat_reply("c")]
    with OpenAI(lambda _: replies.pop(0)) as server:
        samples = ask(server.url, n=3)
    assert samples[0] == Sample("a", "stop", 21, 3, requests=3, place=0)
    refused = chat_reply("half", reason="content_filter")
    with OpenAI(lambda _: refused) as server, pytest.raises(PolicyError) as caught:
        ask(server.url)
    assert caught.value.usage == {"requests": 1, "prompt_tokens": 7, "completion_tokens": 3}


def test_of_several_choices_those_that_are_not_filtered_are_kept():
    reply = chat_reply("a", "b", "c")
    reply["choices"][0]["finish_reason"] = "content_filter"
    reply["choices"][2]["finish_reason"] = "content_filter"
    with OpenAI(lambda _: reply) as server:
        # Nothing is lost of what the two others took, and nobody asks for them again.
        assert ask(server.url, n=3) == [Sample("b", "stop", 7, 9, place=1)]
        assert len(server.requests) == 1
    replies = [chat_reply("a", reason="content_filter"), chat_reply("b")]
    with OpenAI(lambda _: replies.pop(0)) as server:
        assert ask(server.url, n=2) == [Sample("b", "stop", 14, 6, requests=2, place=1)]
    assert [request["seed"] for request in server.requests] == [40, 41]


@pytest.mark.parametrize(
    "line",
    [
        *("KEY: 'sk-1'", 'KEY: "sk-1" # mine', "KEY: sk-1  ; mine", "  KEY = sk-1  "),
        *("export KEY=sk-1", "export KEY='sk-1' # mine", '{\n  "KEY": "sk-1",\n}'),
    ],
)
def test_key_is_read_from_keys_cfg(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KEY", raising=False)
    assert find_key("KEY") is None
    (tmp_path / "keys.cfg").write_text(f"OTHER_KEY: 'sk-0'\n{line}\n")
    assert find_key("KEY") == "sk-1"
    monkeypatch.setenv("KEY", "sk-2")
    assert find_key("KEY") == "sk-2"


@pytest.mark.parametrize(
    "line",
    ["KEY 'sk-1'", "KEY: 'sk-1", "KEY: '<key>'", "KEY:", "sk-1", "KEY: sk 1", "KEY: 'sk-1' 'x'"],
)
def test_a_damaged_keys_cfg_is_named_with_its_line_and_without_its_content(
    tmp_path, monkeypatch, line
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KEY", raising=False)
    (tmp_path / "keys.cfg").write_text(f"# a comment\n\n{line}\n")
    with pytest.raises(ValueError, match=r"line 3 of keys.cfg cannot be read.* KEY: '<key>'") as e:
        find_key("KEY")
    assert "sk-1" not in str(e.value)
    (tmp_path / "keys.cfg").write_text(f"{line}\nKEY: sk-3\n")
    assert find_key("KEY") == "sk-3"


def test_a_key_with_a_line_break_is_refused_without_being_shown(monkeypatch):
    monkeypatch.setenv("KEY", "sk-1\nsk-2")
    with pytest.raises(ValueError, match="KEY holds white space") as caught:
        find_key("KEY")
    assert "sk-" not in str(caught.value)
