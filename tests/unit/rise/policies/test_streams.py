"""Servers that answer only in streams: what they say is the same reply as in one piece.

pytest tests/unit/rise/policies/test_streams.py
"""

import asyncio
import json

import pytest
from aiohttp import web

from rise.policies import streams
from rise.policies.openai_api import OpenAIPolicy
from tests.support.scripted_servers import OpenAI, chat_reply
from tests.unit.rise.policies.test_replies import GOOD, ask, made

USAGE = {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13}
DONE = b"data: [DONE]\n\n"


def event(**fields):
    return b"data: " + json.dumps({"object": "chat.completion.chunk"} | fields).encode() + b"\n\n"


def piece(index=0, reason=None, **delta):
    return event(choices=[{"index": index, "delta": delta, "finish_reason": reason}])


def streamed(n=1, usage=USAGE):
    """The pieces of n answers side by side, each with a thought."""
    pieces = [piece(i, role="assistant", content="", reasoning="h") for i in range(n)]
    pieces += [piece(i, content=text) for text in (GOOD[:5], GOOD[5:]) for i in reversed(range(n))]
    pieces[1:1] = [b": keep-alive\n\n", piece(0, reasoning="m")]
    pieces += [piece(i, "stop") for i in range(n)]
    return pieces + [event(choices=[], usage=usage)] * bool(usage) + [DONE]


ONLY = "This model only support stream mode, please enable the stream parameter."
OPTIONS = {
    "loc": ["body", "stream_options", "include_usage"],
    "msg": "Extra inputs are not permitted",
}


def streams_only(body, takes_options=True):
    if not body.get("stream"):
        return web.json_response({"error": {"message": ONLY, "param": None}}, status=400)
    if "stream_options" in body and not takes_options:
        return web.json_response({"message": {"detail": [OPTIONS]}}, status=422)
    return streamed(body.get("n", 1), USAGE if "stream_options" in body else None)


@pytest.mark.parametrize("takes_options", [True, False])
def test_a_server_that_only_streams_is_learned_once_and_gives_the_same_reply(takes_options, caplog):
    known = {}
    learned = ["stream=false", "stream_options"][: 1 if takes_options else 2]
    with OpenAI(lambda body: streams_only(body, takes_options)) as server:
        samples, answering = ask(server, times=3, n=2, learned=known.__setitem__)
        assert [(s.text, s.reasoning, s.finish_reason) for s in samples] == [
            (GOOD, "hm", "stop"),
            (GOOD, "h", "stop"),
        ]
        counts = (7, 6, 0) if takes_options else (0, 0, 1)
        assert (
            samples[0].prompt_tokens,
            sum(sample.completion_tokens for sample in samples),
            samples[0].uncounted,
        ) == counts
        assert answering.left_out == known["t"] == learned
        assert "t does not take stream=false" in caplog.text
        assert "answers are streamed from now on" in caplog.text
        assert len(caplog.records) == len(learned) == len(server.requests) - 3
        assert server.requests[-1].get("stream_options") == (
            {"include_usage": True} if takes_options else None
        )
        assert all("stream=false" not in body for body in server.requests)
        server.requests.clear()
        ask(server, n=2, left_out=learned)  # a later call of the run knows it
        assert [body["stream"] for body in server.requests] == [True]
        if not takes_options:
            error, _ = ask(server, needs_usage=True, left_out=learned)
            assert error.kind == "setup" and "does not report its tokens" in str(error)


WHOLE = json.dumps(chat_reply(GOOD), indent=1).encode()
PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "h"}]}]
TEXT = [{"type": "text", "text": GOOD[5:]}]


@pytest.mark.parametrize(
    "body",
    [
        b"".join(streamed()).replace(b"\n", b"\r\n"),
        b"".join(streamed()).replace(b"\n\n", b"\n"),
        b"".join(streamed()).replace(b"data: ", b"event: message\nid: 1\ndata:"),
        b"\xef\xbb\xbf" + b"".join(streamed()).removesuffix(DONE),
        b"".join(streamed()).replace(b'"choices": [{', b'\ndata: "choices": [{'),
        piece(content=GOOD) + event(choices=[{"finish_reason": "", "usage": USAGE}]) + DONE,
        piece(content=GOOD[:5]) + piece(content=TEXT, reason="stop"),
        piece(content=PARTS) + piece(content=[GOOD[:5]]) + piece(content=TEXT, reason="eos"),
        piece(content=GOOD[:9]) + event(choices=[{"message": {"content": GOOD}}]),
        event(choices=[{"text": GOOD[:5]}]) + event(choices=[{"text": GOOD[5:]}]) + DONE,
        event(choices=[{"delta": GOOD[:5]}]) + event(choices=[{"delta": GOOD[5:]}]) + DONE,
        WHOLE + b"\n\n" + DONE,
        b"data: " + json.dumps(chat_reply(GOOD)).encode() + b"\n\n",
    ],
    ids=[*"abcdefghijklm"],
)
@pytest.mark.parametrize("left_out", [[], ["stream=false"]], ids=["unasked", "asked"])
def test_every_form_of_a_stream_is_a_reply(body, left_out):
    answer = lambda _: web.Response(body=body, content_type="text/event-stream")  # noqa: E731
    with OpenAI(answer) as server:
        [sample], _ = ask(server, left_out=left_out)
    assert (sample.text, sample.finish_reason) == (GOOD, "stop")


def test_what_a_stream_adds_is_put_together_by_its_kind():
    one = {"index": 0, "delta": {"content": "a\u2028", "role": "assistant"}, "token_ids": [5]}
    two = {"delta": {"content": "b", "tool_calls": [1]}, "token_ids": [6], "finish_reason": "MAX"}
    text = b"".join([event(choices=[one], id=1), event(choices=[two], id=2)]).decode()
    for form in (text, text.replace(r"\u2028", "\u2028")):
        reply = streams.whole(form)
        [choice] = reply["choices"]
        assert choice["message"]["content"] == "a\u2028b" and choice["token_ids"] == [5, 6]
        assert (choice["finish_reason"], reply["id"]) == ("MAX", 2)
    assert streams.whole("<html>\ndata: {}\n") is streams.whole("all data: {}") is None
    assert streams.whole("data: oops\n\n") is None


LOST = {"error": {"message": "Provider disconnected", "code": 502}}


@pytest.mark.parametrize(
    ("pieces", "kind", "tries", "words"),
    [
        (streamed()[:-3], "server", 3, "broke the answer off: stream_aborted"),
        (streamed()[:4], "server", 3, "broke the answer off"),
        ([*streamed()[:4], b'data: {"choices": [{"del'], "server", 3, "broke the answer off"),
        (
            [*streamed()[:3], b"data: {cut\n\n", *streamed()[4:-2], DONE],
            "server",
            3,
            "broke the answer",
        ),
        ([*streamed()[:4], event(**LOST), DONE], "server", 3, "HTTP 502: Provider disconnected"),
        ([*streamed()[:4], json.dumps(LOST).encode()], "server", 3, "Provider disconnected"),
        ([b"data: " + json.dumps([LOST]).encode() + b"\n\n"], "server", 3, "disconnected"),
        ([b'event: error\ndata: {"message": "Rate limit reached"}\n\n'], "overloaded", 4, "Rate"),
        ([*streamed()[:4], b"event: error\ndata: oops\n\n", DONE], "server", 3, "oops"),
        ([piece(0, "error", content="half"), DONE], "server", 3, "broke the answer off: error"),
        ([piece(0, "content_filter"), event(usage=USAGE), DONE], "content_filter", 1, "ended with"),
        ([event(choices=[]), DONE], "server", 3, "no choices"),
        ([*streamed()[:5], None], "connection", 3, "RemoteProtocolError"),
        ([b"data: oops\n\n"], "server", 3, "no JSON"),
    ],
)
def test_a_stream_that_breaks_off_is_an_error_and_never_half_an_answer(pieces, kind, tries, words):
    with OpenAI(lambda _: pieces) as server:
        error, _ = ask(server, left_out=["stream=false"], needs_usage=True)
        assert (error.kind, len(server.requests)) == (kind, tries), error
    assert words in str(error)
    # What was begun was paid, and nobody says how much.
    text = b"".join(filter(None, pieces))
    begun = tries if b'"delta"' in text and b'"usage"' not in text and pieces[-1] else 0
    assert error.usage.get("uncounted_requests", 0) == begun


def test_of_several_answers_those_that_broke_off_are_drawn_anew():
    def answer(body):
        return streamed(2)[:-3] if len(server.requests) == 1 else streamed(body.get("n", 1))

    with OpenAI(answer) as server:
        samples, _ = ask(server, n=2, left_out=["stream=false"])
        assert [(s.text, s.place) for s in samples] == [(GOOD, 0), (GOOD, 1)]
        assert [body["seed"] for body in server.requests] == [1, 3]


def test_a_long_stream_is_put_together_in_linear_time():
    text = b"".join([piece(content="x") * 50_000, piece(reason="stop")]).decode()
    assert len(streams.whole(text)["choices"][0]["message"]["content"]) == 50_000
    assert streams.whole("data: {\n" * 200_000) is None


def test_a_deployment_of_azure_is_asked_though_it_is_not_listed():
    class Azure(OpenAI):
        async def _models(self, request):
            card = {"id": "o3-mini-2025-01-31", "lifecycle_status": "generally-available"}
            return web.json_response({"data": [card], "object": "list"})

        async def _generate(self, request):
            self.paths.append(request.path_qs)
            return await super()._generate(request)

    def o3(body):
        for name, refused in (
            ("max_tokens", "Use 'max_completion_tokens' instead."),
            ("temperature", "Only the default (1) value is supported."),
            ("top_p", ""),
        ):
            if name in body:
                said = f"Unsupported parameter: '{name}' is not supported here. {refused}"
                error = {"message": said, "param": name, "code": "unsupported_parameter"}
                return web.json_response({"error": error}, status=400)
        return chat_reply(GOOD)

    with Azure(o3) as server:
        my_o3 = OpenAIPolicy("t", base_url=f"{server.url}/v1", **made() | {"model": "my-o3"})
        asyncio.run(my_o3.check())
        [sample], answering = ask(server, model="my-o3")
        assert sample.text == GOOD and answering.left_out == ["max_tokens", "temperature", "top_p"]
        assert server.requests[-1].keys() == {"model", "messages", "seed", "max_completion_tokens"}
        # One that reasons by its name is asked so at once, whoever serves it.
        ask(server, model="openai/gpt-5-mini", settings={"temperature": 1.0})
        assert server.requests[-1].keys() == {"model", "messages", "seed", "max_completion_tokens"}
        # An endpoint with a version takes its key, and its query, as Azure's deployments do.
        url = f"{server.url}/v1?api-version=2024-10-21"
        azure = OpenAIPolicy("t", base_url=url, **made(key="sk-azure", left_out=answering.left_out))
        asyncio.run(azure._server.call("post", "/chat/completions", body={}))
        assert server.headers[-1]["api-key"] == "sk-azure" and "=2024-10-21" in server.paths[-1]
        assert "Authorization" not in server.headers[-1] and server.headers[0]["Authorization"]
