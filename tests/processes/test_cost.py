"""Paid models: prices, the limit of the cost, the forecast, and a key that nobody repeats.

pytest tests/processes/test_cost.py
"""

import json

import pytest
from aiohttp import web

from tests.support.offline_wandb import read_offline_run
from tests.support.scripted_servers import OpenAI, chat_reply
from tests.support.stages import call, command, environment, files_in, run_program
from tests.support.tiny import save_tiny_model

GEN = "workflow_gen.py"
KEY = "sk-proj-2718281828"
PAID = ("--max_turns", 1, "--models", "gpt-4", "--log_dir", "run")
PRICE = ("--price", "gpt-4=1000,2000")
EACH = (7 * 1000 + 3 * 2000) / 1e6
"""USD for one answer of `chat_reply`."""


def gen(place, server, *arguments, code=0):
    where = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{server.url}/v1"}
    return call(place, GEN, *PAID, *arguments, code=code, **where)


def summary(place):
    return json.loads((place / "run" / "summary.json").read_text())


def test_no_output_and_no_file_holds_the_key_whatever_a_server_repeats(place):
    """The key comes from keys.cfg; the server puts it into every kind of failure."""

    def refusal(status):
        body = {"error": {"message": f"bad key {KEY} in Bearer {KEY}", "code": None}}
        return web.json_response(body, status=status)

    def answer(body):
        question = body["messages"][-1]["content"]
        seen = sum(one["messages"] == body["messages"] for one in server.requests)
        if "What is 1 + 1?" in question:
            return refusal(400)
        if "What is 2 + 1?" in question and seen == 1:
            return refusal(500)
        return chat_reply("\\boxed{1}", reason=KEY if "What is 3 + 1?" in question else "stop")

    (place / "keys.cfg").write_text(f"OPENAI_API_KEY: '{KEY}'\n")
    with OpenAI(answer, served=("gpt-4",)) as server:
        words = (*PAID, *PRICE, "--verbose", "--wandb_project", "p")
        env = environment(WANDB_MODE="offline", OPENAI_BASE_URL=f"{server.url}/v1")
        done = run_program(*command(GEN, *words), cwd=place, env=env, code=1)
    named = ("--max_turns", 1, "--log_dir", "b", "--models", f"m@http://u:{KEY}@host/v1")
    refused = call(place, GEN, *named, code=2)
    assert "11 of 12 episodes" in done.stdout
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "trying again" in done.stderr and "sk-..." in done.stderr
    assert "URL must hold no user" in refused.stderr
    holders = [name for name, data in files_in(place).items() if KEY.encode() in data]
    assert holders == ["keys.cfg"]
    assert not any(KEY in text for run in (done, refused) for text in (run.stdout, run.stderr))
    tracked = read_offline_run(place / "run")
    assert KEY not in json.dumps(tracked) and tracked["config"]["prices"]
    # What the progress line says goes to wandb as well.
    last = tracked["history"][-1]
    assert (last["episodes"], last["total"], last["errors"]) == (11, 12, 1)
    assert last["tokens_per_second"] > 0 and last["eta_seconds"] > 0
    assert last["cost_usd"] == pytest.approx(11 * EACH)


def test_summary_has_usage_and_cost_of_failed_attempts_too(place):
    def answer(body):
        filtered = "What is 3 + 1?" in body["messages"][-1]["content"]
        return chat_reply("\\boxed{1}", reason="content_filter" if filtered else "stop")

    with OpenAI(answer, served=("gpt-4",)) as server:
        assert f"cost: {12 * EACH:.4f} USD" in gen(place, server, *PRICE, code=1).stdout
        assert summary(place)["usage"]["gpt-4"]["requests"] == 12
        # The failed one is asked again: what the first try cost is not forgotten.
        gen(place, server, *PRICE, code=1)
    found = summary(place)
    counts = {"requests": 13, "samples": 11, "prompt_tokens": 91, "completion_tokens": 39}
    assert found["usage"]["gpt-4"] == counts | {"cost_usd": pytest.approx(13 * EACH)}
    assert found["cost_usd"] == pytest.approx(13 * EACH)


def test_limit_of_the_cost_stops_a_run_and_a_larger_one_goes_on(place):
    with OpenAI(lambda _: chat_reply("\\boxed{1}"), served=("gpt-4",)) as server:
        limited = (*PRICE, "--concurrency", 1)
        for _ in range(2):
            stopped = gen(place, server, *limited, "--max_cost_usd", 4.5 * EACH, code=1).stdout
            assert len(server.requests) == 5
            assert "Stopped at --max_cost_usd 0.0585" in stopped
            assert "5 of 12 episodes" in stopped and "larger --max_cost_usd" in stopped
        gen(place, server, *limited, "--max_cost_usd", 1)
    assert len(server.requests) == 12
    assert summary(place)["cost_usd"] == pytest.approx(12 * EACH)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max_cost_usd", 5], "needs the price of gpt-4: add --price gpt-4=IN,OUT"),
        (["--max_cost_usd", 0], "--max_cost_usd is 0.0"),
        (["--price", "gpt-4=30"], "--price is 'gpt-4=30': give MODEL=IN,OUT"),
        (["--price", "gpt-4=30,-1"], "give MODEL=IN,OUT"),
        (["--price", "gpt-5=1,2"], "--price names 'gpt-5': the models are gpt-4"),
    ],
)
def test_prices_that_will_not_do_are_refused_before_anything_is_asked(place, arguments, message):
    with OpenAI(lambda _: chat_reply("x"), served=("gpt-4",)) as server:
        assert message in gen(place, server, *arguments, code=2).stderr
    assert not server.requests and not (place / "run").exists()


def test_the_forecast_bounds_answers_tokens_and_cost(place):
    save_tiny_model(place / "model")
    with OpenAI(lambda _: chat_reply("x"), served=("gpt-4",)) as server:
        shown = call(
            place, GEN, "--models", "model", "gpt-4", "--max_turns", 2, "--num_of_samples", 1, 4,
            "--max_new_tokens", 10, 20, "--log_dir", "run", "--limit", 2, *PRICE, "--dry-run",
            OPENAI_API_KEY=KEY, OPENAI_BASE_URL=f"{server.url}/v1",
        )  # fmt: skip
    assert not server.requests and not (place / "run").exists()
    assert "<|im_start|>user\nWhat is 0 + 1?<|im_end|>\n<|im_start|>assistant\n" in shown.stdout
    assert "  model: 2 answers, 20 new tokens\n" in shown.stdout
    (paid,) = [line for line in shown.stdout.splitlines() if "USD" in line]
    assert paid.startswith("  gpt-4: 8 answers, 160 new tokens, ")
    # A prompt has the question, the feedback and the attempt, which may take its limit of 10.
    least, most = ((2 * tokens * 1000 + 160 * 2000) / 1e6 for tokens in (10 + 14 // 3, 80))
    assert least < float(paid.split(", ")[2].split(" USD")[0]) < most
