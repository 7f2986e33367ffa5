"""Refusals in the words of real servers: what is left out, and what is about something else.

pytest tests/unit/rise/policies/test_refusals.py
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

from rise.policies.openai_server import OpenAIServer
from rise.policies.policy import PolicyError
from rise.policies.refusals import WHOLE
from rise.policies.replies import parse, trouble_in
from tests.support.scripted_servers import OpenAI, chat_reply
from tests.unit.rise.policies.test_replies import ask

WORDINGS = Path(__file__).parents[3] / "support" / "refusals.jsonl"
NOBODY = SimpleNamespace(url="http://127.0.0.1:9")
ROWS = [json.loads(line) for line in WORDINGS.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("row", [row for row in ROWS if "who" in row], ids=lambda row: row["who"])
def test_what_is_refused_is_left_out_and_nothing_else(row, monkeypatch):
    text = row["body"] if isinstance(row["body"], str) else json.dumps(row["body"])

    async def call(server, method, path, body=None):
        """A server that answers when nothing is asked for that it refuses."""
        sent = {*(body or {}), *([] if "stream" in (body or {}) else [WHOLE])}
        if method == "get" or not sent & {*row["left_out"]}:
            return chat_reply(*["5"] * (body or {}).get("n", 1))
        if row["status"] == 200:
            return row["body"]
        raise server.typed(trouble_in(parse(text.encode()), row["status"]))

    monkeypatch.setattr(OpenAIServer, "call", call)
    samples, answering = ask(NOBODY, n=2)
    assert not isinstance(samples, PolicyError), samples
    assert [sample.text for sample in samples] == ["5", "5"]
    assert answering.left_out == sorted(row["left_out"])


def test_what_is_about_something_else_is_typed_by_the_servers_words():
    for row in [row for row in ROWS if "kind" in row]:
        trouble = trouble_in(row["body"], row["status"] if row["status"] > 200 else None)
        assert trouble.kind == row["kind"], trouble


@pytest.mark.parametrize("words", ["Bad Request", "'n' must be 1"])
def test_what_the_first_answers_did_not_have_is_found_out_later(words):
    def answer(body):
        return web.Response(status=400, text=words) if "n" in body else chat_reply("5")

    with OpenAI(answer) as server:
        samples, answering = ask(server, n=(1, 1, 2))
        assert len(samples) == 2 and answering.left_out == ["n"]
        assert ["n" in body for body in server.requests[:3]] == [False, False, True]


def test_what_an_answered_request_had_is_not_suspected_where_nobody_names_it():
    def answer(body):
        return chat_reply("5") if len(server.requests) == 1 else web.Response(status=400, text="no")

    with OpenAI(answer) as server:
        error, answering = ask(server, times=2)
        assert (error.kind, len(server.requests), answering.left_out) == ("bad_request", 2, [])


@pytest.mark.parametrize(("code", "words"), [(500, "n invalid"), (400, "Bad Request")])
def test_a_failure_that_passes_is_no_refusal(code, words):
    def answer(body):
        fails = len(server.requests) % 2
        return web.Response(status=code, text=words) if fails else chat_reply("5", "5")

    with OpenAI(answer) as server:
        samples, answering = ask(server, n=2)
        assert len(samples) == len(server.requests) == 2 and not answering.left_out


@pytest.mark.parametrize(
    ("words", "most"),
    [
        ("max_tokens is too large: {}. This model supports at most 2048", 2048),
        ("max_tokens: {} > 2048, which is the maximum allowed number of output tokens", 2048),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 2048]", 2048),
        ("The maximum tokens you requested exceeds the model limit of 2,048.", 2048),
        ("`max_tokens` {} is above the 2048-token limit of m-16k-1106", 2048),
        ("maxOutputTokens of {} but the range is from 1 (inclusive) to 2049 (exclusive)", 2048),
        ("max_tokens 参数非法,取值范围[1,2048]", 2048),
        ("body.max_tokens: Input should be less than or equal to 2048", 2048),
    ],
)
def test_a_limit_of_new_tokens_above_the_models_is_lowered_once(words, most, caplog):
    def answer(body):
        asked = body["max_tokens"]
        too_large = web.json_response({"error": {"message": words.format(asked)}}, status=400)
        return too_large if asked > most else chat_reply("5")

    with OpenAI(answer) as server:
        samples, answering = ask(server, times=3, settings={"max_new_tokens": 4096})
    assert samples[0].text == "5" and answering.left_out == [f"max_tokens>{most}"]
    assert [body["max_tokens"] for body in server.requests[-3:]] == [most] * 3
    [line] = [record.message for record in caplog.records]
    assert "t does not take max_tokens>2048 (" in line
    assert line.endswith("): answers have 2048 tokens at most from now on")


@pytest.mark.parametrize("words", ["max_tokens must be above 1024", "max_tokens must be positive"])
def test_a_limit_of_new_tokens_that_the_server_finds_too_small_ends_the_run(words):
    with OpenAI(lambda _: web.Response(status=400, text=words)) as server:
        error, _ = ask(server)
    assert error.kind == "setup" and error.message.endswith("give another value")
    assert len(server.requests) == 1
