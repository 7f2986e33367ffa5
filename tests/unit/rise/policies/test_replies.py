"""What OpenAI-compatible servers really send: each kind of reply, and what becomes of it.

pytest tests/unit/rise/policies/test_replies.py
"""

import asyncio
import json

import pytest
from aiohttp import web

from rise.policies import policy
from rise.policies.openai_api import OpenAIPolicy
from rise.policies.openai_server import proxy_of
from rise.policies.policy import PolicyError, Retries
from tests.support.scripted_servers import OpenAI, chat_reply

GOOD = r"So it is \boxed{117}."


def made(**changes):
    """A policy's arguments; the URL is set by `ask`."""
    retries = Retries(attempts=3, timeouts=2, overloads=4, first_wait=0.001)
    return {"model": "teacher", "key": "none", "retries": retries} | changes


def ask(server, *, times=1, n=1, settings=None, **changes):
    """The samples of the last turn, or the error; and who was asked. `n` may be one for each."""
    answering = OpenAIPolicy("t", base_url=f"{server.url}/v1", **made(**changes))
    settings = {"temperature": 0.7, "top_p": 1.0, "max_new_tokens": 64} | (settings or {})
    messages = [{"role": "user", "content": "1+1?"}]

    async def turns():
        try:
            for k in n if isinstance(n, tuple) else (n,) * times:
                samples = await answering.sample(messages, n=k, seed=1, problem={}, **settings)
            return samples
        except PolicyError as error:
            return error
        finally:
            await answering.close()

    return asyncio.run(turns()), answering


def reply(text=GOOD, reason="stop", n=1, **message):
    body = chat_reply(*[text] * n, reason=reason)
    for choice in body["choices"]:
        choice["message"] |= message
    return body


@pytest.mark.parametrize(
    ("reasons", "end"),
    [
        (
            "stop eos eos_token end_turn stop_sequence STOP tool_calls done FinishReason.STOP",
            "stop",
        ),
        ("length model_length max_tokens MAX_TOKENS max_output_tokens maxTokens", "length"),
        ("model_context_window_exceeded LENGTH", "length"),
    ],
)
def test_every_spelling_of_an_end(reasons, end):
    blank = ["", None] if end == "stop" else []
    for reason in [*reasons.split(), *blank]:
        with OpenAI(lambda _, reason=reason: reply(reason=reason)) as server:
            samples, _ = ask(server)
        assert [(s.text, s.finish_reason) for s in samples] == [(GOOD, end)], reason


PART = {"type": "text", "text": "So "}
THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": None, "reasoning_content": "I think"}, "", "I think"),
        ({"content": None, "reasoning": "I think", "reasoning_content": "I think"}, "", "I think"),
        ({"content": None, "refusal": "I can't"}, "", "I can't"),
        ({"content": None}, "", None),
        ({"content": [PART, {"type": "text", "text": "5"}]}, "So 5", None),
        ({"content": [THOUGHT, None, PART, "5"]}, "So 5", "hm"),
        ({"content": "5", "reasoning_details": [PART | {"text": "hm"}]}, "5", "hm"),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, "", "no"),
        ({"content": []}, "", None),
        ({"content": "<think>a</think>5"}, "<think>a</think>5", None),
        ({"content": "a\0b \ud83d", "reasoning": "\ud83d"}, "a\ufffdb \ufffd", "\ufffd"),
    ],
)
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_an_attempt_without_an_answer_is_recorded_and_paid_once(message, text, reasoning, reason):
    # ASCII escapes, as half a surrogate pair comes over the wire.
    body = json.dumps(reply(reason=reason, **message))
    answer = lambda _: web.Response(text=body, content_type="application/json")  # noqa: E731
    with OpenAI(answer) as server:
        [sample], _ = ask(server)
    assert (sample.text, sample.reasoning, sample.finish_reason) == (text, reasoning, reason)
    assert (sample.prompt_tokens, sample.completion_tokens, len(server.requests)) == (7, 3, 1)
    assert sample.replaced == text.count("\ufffd")


def refuse(status, said, *names, code=None, **fields):
    """A server that refuses requests with one of these parameters."""

    def answer(body):
        if not names or any(body.get(name, 1) != 1 or name in body for name in names):
            body = fields or {"error": {"message": said, "code": code}}
            return web.json_response(body, status=status)
        return reply(n=body.get("n", 1))

    return answer


EXTRA = {"type": "extra", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}
RENAMED = "Unsupported parameter: 'max_tokens' ... Use 'max_completion_tokens' instead."


@pytest.mark.parametrize(
    ("answer", "left_out"),
    [
        (refuse(400, "'n' : number must be at most 1", "n"), ["n"]),
        (refuse(422, "", "seed", object="error", message={"detail": [EXTRA]}), ["seed"]),
        (refuse(400, "top_p must be > 0 and < 1", "top_p"), ["top_p"]),
        (refuse(400, RENAMED, "max_tokens"), ["max_tokens"]),
        (refuse(400, "bad", "seed", "n"), ["n", "seed"]),
        (refuse(200, "seed is not supported", "seed", code="invalid_request"), ["seed"]),
    ],
)
def test_a_refused_parameter_is_learned_once_and_said_once(answer, left_out, caplog):
    known = {}
    with OpenAI(answer) as server:
        samples, answering = ask(server, times=3, n=2, learned=known.__setitem__)
    assert [sample.text for sample in samples] == [GOOD] * 2
    assert answering.left_out == known["t"] == left_out
    assert len(caplog.records) == len(left_out) and "does not take" in caplog.text
    last = server.requests[-1].keys()
    assert not last & (set(left_out) - {"max_completion_tokens"}) and "\n" not in caplog.messages[0]
    assert "max_tokens" not in left_out or "max_completion_tokens" in last
    tries = len(server.requests)
    with OpenAI(answer) as server:  # a later call of the run knows it
        ask(server, times=3, n=2, left_out=left_out)
    assert len(server.requests) == (6 if "n" in left_out else 3) < tries


def test_a_value_that_is_out_of_range_is_the_users_to_change():
    answer = refuse(400, "temperature must be between 0 and 0.5", "temperature")
    with OpenAI(answer) as server:
        error, answering = ask(server)
        assert error.kind == "setup" and "give another value" in str(error)
        assert not answering.left_out and len(server.requests) == 1


def in_200(**fields):
    return lambda _: {"error": {"message": "Provider said no", **fields}}


def page(status, text="<!DOCTYPE html><html><title>Oops</title><body>x</body></html>"):
    return lambda _: web.Response(status=status, text=text, content_type="text/html")


def status(http, message="no", **fields):
    return lambda _: web.json_response({"error": {"message": message, **fields}}, status=http)


def broken(body):
    return chat_reply("half", reason="error") | {"usage": None}


def broken_inside(body):
    answer = chat_reply(None, reason=None)
    answer["choices"][0]["error"] = {"code": 429, "message": "Rate limit exceeded"}
    return answer


@pytest.mark.parametrize(
    ("answer", "kind", "tries", "words"),
    [
        (in_200(code=429), "overloaded", 4, "Provider said no"),
        (in_200(code="502"), "server", 3, "HTTP 502"),
        (in_200(), "server", 3, "HTTP 200 with an error: Provider said no"),
        (in_200(code="insufficient_quota"), "quota", 1, "fill the account"),
        (in_200(type="authentication_error"), "unauthorized", 1, "RISE_SERVER_KEY"),
        (lambda _: {"error": "Rate limit reached"}, "overloaded", 4, "Rate limit reached"),
        (lambda _: web.json_response([in_200(code=429)(_)]), "overloaded", 4, "Provider said no"),
        (lambda _: {"code": 1113, "msg": "Insufficient balance"}, "quota", 1, "Insufficient"),
        (broken, "server", 3, "broke the answer off: error"),
        (broken_inside, "overloaded", 4, "Rate limit exceeded"),
        (page(200), "not_found", 1, r"a web page \(Oops\); check the URL"),
        (page(404), "not_found", 1, "a web page"),
        (page(502), "server", 3, "HTTP 502: a web page"),
        (page(403), "unauthorized", 1, "a web page"),
        (page(501), "not_found", 1, "a web page"),
        (status(418), "not_found", 1, "HTTP 418: no; check the URL"),
        (status(499), "server", 3, "no"),
        (status(403, "Rate limit exceeded"), "overloaded", 4, "Rate limit"),
        (lambda _: chat_reply("", reason="load"), "server", 3, "broke the answer off: load"),
        (status(400, fault={"faultstring": "no", "detail": {}}), "bad_request", 5, "no"),
        (lambda _: web.Response(text="half {"), "server", 3, "no JSON"),
        (lambda _: web.Response(text="[" * 100_000), "server", 3, "no JSON"),
        (lambda _: {}, "server", 3, "no choices"),
        (lambda _: {"choices": [7]}, "server", 3, "no object"),
        (status(401), "unauthorized", 1, "no"),
        (
            lambda _: web.Response(status=429, headers={"Retry-After": "0.01"}),
            "overloaded",
            4,
            "429",
        ),
        (lambda _: chat_reply("half", reason="content_filter"), "content_filter", 1, "filter"),
        (status(402, "Insufficient credits"), "quota", 1, "Insufficient credits; fill the account"),
        (status(400, "Your credit balance is too low to access the API"), "quota", 1, "fill the"),
        (status(403, "Country not supported"), "unauthorized", 1, "Country not supported"),
        (status(400, "API key not valid. Pass a valid one."), "unauthorized", 1, "its key is read"),
        (lambda _: web.json_response({"detail": "Not Found"}, status=404), "not_found", 1, "/v1"),
        (status(400, "m is not a valid model ID"), "not_found", 1, "the name of the model"),
        (status(400, "x", code="content_filter"), "content_filter", 1, "x"),
        (lambda _: {"promptFeedback": {"blockReason": "SAFETY"}}, "content_filter", 1, "prompt"),
        (lambda _: {"choices": [], "block_reason": None}, "server", 3, "no choices"),
        (lambda _: {"choices": [{"message": ["5"]}]}, "server", 3, "a list"),
        (lambda _: {"message": {"role": "assistant", "content": "5"}}, "server", 3, "no choices"),
        (lambda _: {"choices": 0, "base_resp": {"status_msg": "wait"}}, "server", 3, "wait"),
        (status(498), "overloaded", 4, "no"),
        (status(412, "Account x is suspended"), "quota", 1, "suspended; fill the account"),
        (status(400, "Budget has been exceeded!"), "quota", 1, "fill the account"),
        (status(429, "Limit: free-models-per-day"), "quota", 1, "fill the account"),
        (status(400, "The model has crashed (Exit code: 6)"), "server", 3, "crashed"),
        (status(409), "server", 3, "no"),
        (status(424), "server", 3, "no"),
        (status(529, type="overloaded_error"), "overloaded", 4, "no"),
        (status(503, "Loading model"), "overloaded", 4, "Loading model"),
        (status(500, "a\nb\x1b[2J"), "server", 3, "a b\ufffd"),
    ],
)
def test_an_error_is_typed_tried_again_where_that_helps_and_says_the_servers_words(
    answer, kind, tries, words
):
    with OpenAI(answer) as server:
        error, _ = ask(server)
        assert error.kind == kind and len(server.requests) == tries
    assert len(str(error).splitlines()) == 1 and str(error).count("; its key") <= 1
    with pytest.raises(PolicyError, match=words):
        raise error


ORDER = [{"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": GOOD}}]


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(reply() | {"error": {"code": 0, "message": ""}}).encode(),
        b"\xef\xbb\xbf" + json.dumps(reply()).encode(),
        json.dumps(reply()).encode("utf-16"),
        json.dumps({"choices": ORDER}).encode(),
    ],
    ids=["error of nothing", "byte order mark", "UTF-16", "out of order"],
)
def test_an_answer_in_an_odd_wrapping_is_one(body):
    with OpenAI(lambda _: web.Response(body=body, content_type="application/json")) as server:
        assert ask(server)[0][0].text == GOOD


def test_where_all_tokens_went_into_reasoning_there_is_an_attempt_without_an_answer():
    words = "Could not finish the message because max_tokens or model output limit was reached."
    with OpenAI(status(400, words)) as server:
        samples, answering = ask(server, n=2)
        assert [(s.text, s.finish_reason, s.uncounted) for s in samples] == [
            ("", "length", 1),
            ("", "length", 0),
        ]
        assert len(server.requests) == 1 and not answering.left_out


@pytest.mark.parametrize(
    ("words", "headers"),
    [
        ("daily", {"Retry-After": "3600"}),
        ("daily", {"retry-after-ms": "3600000"}),
        ("Limit 100000. Please try again in 59m60s.", {}),
    ],
)
def test_who_asks_to_wait_an_hour_is_not_asked_again(words, headers):
    answer = lambda _: web.Response(status=429, text=words, headers=headers)  # noqa: E731
    with OpenAI(answer) as server:
        error, _ = ask(server)
        assert error.kind == "quota" and "wait 3600 s" in str(error) and len(server.requests) == 1


def test_a_choice_that_broke_off_is_drawn_anew_beside_one_that_is_an_answer():
    def answer(body):
        found = reply(n=body.get("n", 1))
        if len(server.requests) == 1:
            found["choices"][0]["error"] = {"code": 502, "message": "gone"}
        return found

    with OpenAI(answer) as server:
        samples, _ = ask(server, n=3)
        assert [sample.place for sample in samples] == [0, 1, 2]
        assert [(body.get("n"), body["seed"]) for body in server.requests] == [(3, 1), (None, 4)]


@pytest.mark.parametrize(
    ("usage", "prompt", "answers", "uncounted"),
    [
        ({"prompt_tokens": "7", "completion_tokens": 3.0}, 7, 3, 0),
        ({"prompt_tokens": 7, "total_tokens": 10}, 7, 3, 0),
        ({"input_tokens": 7, "output_tokens": 3}, 7, 3, 0),
        ({"prompt_tokens": None, "completion_tokens": None}, 0, 0, 1),
        ({"prompt_tokens": float("nan"), "completion_tokens": 3}, 0, 3, 1),
        ({"prompt_tokens": float("inf"), "completion_tokens": -5}, 0, 0, 1),
        ({"prompt_tokens": "many", "completion_tokens": True}, 0, 0, 1),
        ({"prompt_tokens": [7], "completion_tokens": {}}, 0, 0, 1),
        ([], 0, 0, 1),
        (None, 0, 0, 1),
    ],
)
def test_counts_are_read_or_left_unknown(usage, prompt, answers, uncounted):
    with OpenAI(lambda _: reply() | {"usage": usage}) as server:
        [sample], _ = ask(server)
        assert (sample.prompt_tokens, sample.completion_tokens) == (prompt, answers)
        assert (
            sample.uncounted == uncounted == policy.usage_of([sample]).get("uncounted_requests", 0)
        )
        if uncounted:
            error, _ = ask(server, needs_usage=True)
            assert error.kind == "setup" and "does not report its tokens" in str(error)


def test_loopback_is_asked_directly_and_a_proxy_is_named(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with OpenAI(lambda _: reply()) as server:
        assert ask(server)[0][0].text == GOOD
    far = OpenAIPolicy("t", base_url="http://far.example/v1", **made())
    with pytest.raises(PolicyError, match=r"through the proxy http://127.0.0.1:9") as caught:
        asyncio.run(far.check())
    assert caught.value.kind == "connection" and "secret" not in str(caught.value)
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    assert proxy_of("http://far.example/v1") == "socks5://127.0.0.1:9"
    far = OpenAIPolicy("t", base_url="http://far.example/v1", **made())
    with pytest.raises(PolicyError, match="socks") as caught:
        asyncio.run(far.check())
    assert caught.value.kind == "setup" and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("listed", "fits"),
    [
        ([{"id": "teacher"}], True),
        ({"data": [{"id": "models/teacher"}]}, True),
        ({"models": [{"name": "teacher"}]}, True),
        ({"data": [{"id": "teacher:latest"}]}, True),
        ({"data": [{"id": "tea*"}]}, True),
        ({"data": [{"id": "x"}], "has_more": True}, True),
        ({"data": None}, False),
        ({"data": [{"id": "x"}] * 300}, False),
        ({"object": "list"}, True),
        ("<html>sign in</html>", False),
        ({"data": [{"id": "llama3"}]}, True),
        ({"data": [{"id": "llama3:8b"}]}, True),
        ({"data": [{"id": "llama3:70b"}]}, False),
    ],
)
def test_lists_of_models_come_in_many_forms(listed, fits):
    model = "llama3:8b" if "llama3" in str(listed) else "teacher"

    class Listing(OpenAI):
        async def _models(self, request):
            return web.Response(text=listed) if type(listed) is str else web.json_response(listed)

    with Listing(lambda _: reply()) as server:
        answering = OpenAIPolicy("t", base_url=f"{server.url}/v1", **made(model=model))
        if fits:
            asyncio.run(answering.check())
            return
        with pytest.raises(PolicyError) as caught:
            asyncio.run(answering.check())
    assert caught.value.kind == "not_found" and len(str(caught.value)) < 300
