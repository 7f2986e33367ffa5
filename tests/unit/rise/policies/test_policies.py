"""Who answers to a name, Python functions as models, and what is tried again.

pytest tests/unit/rise/policies/test_policies.py
"""

import asyncio
import math
import threading
import time

import pytest

from fastchat.client.process import free_ports
from fastchat.model import hub
from rise.policies import names as choice
from rise.policies.function import FunctionPolicy
from rise.policies.policy import PolicyError, Retries
from tests.support.scripted_servers import OpenAI, Wire, chat_reply, wire_reply

ASK = {
    "n": 1,
    "seed": 0,
    "temperature": 1.0,
    "top_p": 1.0,
    "max_new_tokens": 8,
    "problem": {"question": "1+1?", "task_id": 5},
}
MESSAGES = [{"role": "user", "content": "1+1?"}]


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """A directory with functions.py as the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "functions.py").write_text(
        "import asyncio, sys, time\n"
        "def plain(problem, messages):\n"
        "    problem['x'] = messages.clear()\n"
        "    return f\"{problem['task_id']} {problem['question']}\"\n"
        "async def coroutine(problem, messages): return messages[-1]['content']\n"
        "def raises(problem, messages): raise KeyError('oops')\n"
        "def stops(problem, messages): return next(iter([]))\n"
        "def leaves(problem, messages): sys.exit(3)\n"
        "def number(problem, messages): return 42\n"
        "def slow(problem, messages): time.sleep(0.2); return 'done'\n"
        "import threading; barrier = threading.Barrier(20, timeout=30)\n"
        "def together(problem, messages): return str(barrier.wait())\n"
        "constant = 1\n"
        "def reads(problem, messages): raise TimeoutError('the read timed out')\n"
    )
    return tmp_path


def ask(policy, **changes):
    return asyncio.run(policy.sample(MESSAGES, **{**ASK, **changes}))


def test_a_function_or_a_coroutine_gets_the_row_with_its_task_id_and_cannot_change_it(functions):
    samples = ask(FunctionPolicy("functions.py:plain"), n=2)
    assert [sample.text for sample in samples] == ["5 1+1?"] * 2
    assert MESSAGES == [{"role": "user", "content": "1+1?"}] and "x" not in ASK["problem"]
    assert ask(FunctionPolicy("functions.py:coroutine"))[0].text == "1+1?"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raises", r"raised KeyError: 'oops' \(.*functions.py, line \d+\)$"),
        ("stops", "raised"),
        ("leaves", "SystemExit"),
        ("number", "returned int, not str: let it return a text"),
    ],
)
def test_failing_function_is_a_typed_error(functions, function, message):
    with pytest.raises(PolicyError, match=message) as caught:
        ask(FunctionPolicy(f"functions.py:{function}"))
    # What has the wrong type has it at every problem.
    assert caught.value.kind == ("setup" if function == "number" else "function")


def test_a_function_that_hangs_runs_out_of_time_and_a_timeout_of_its_own_is_not_ours(functions):
    with pytest.raises(PolicyError, match=r"no answer within 0.05 s"):
        ask(FunctionPolicy("functions.py:slow", request_timeout=0.05))
    with pytest.raises(PolicyError, match="raised TimeoutError: the read timed out"):
        ask(FunctionPolicy("functions.py:reads"))


def test_a_file_is_run_once_and_may_define_dataclasses(functions):
    (functions / "typed.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from pathlib import Path\n"
        "@dataclass\n"
        "class Answer:\n"
        "    text: str\n"
        "def f(problem, messages): return Answer('5').text\n"
        "Path('runs').open('a').write('run ')\n"
    )
    assert choice.decide(["typed.py:f"], "http://127.0.0.1:9") == {"typed.py:f": "function"}
    assert ask(FunctionPolicy("typed.py:f"))[0].text == "5"
    assert (functions / "runs").read_text() == "run "


def test_functions_run_side_by_side(functions):
    policy = FunctionPolicy("functions.py:together")

    async def many():
        return await asyncio.gather(*(policy.sample(MESSAGES, **ASK) for _ in range(20)))

    # Each call waits for the other nineteen.
    assert sorted(int(samples[0].text) for samples in asyncio.run(many())) == list(range(20))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.py:f", "no file missing.py"),
        ("functions.py:nothing", "has no function nothing"),
        ("signatures.py:two", r"has no function two; it has one, three$"),
        ("functions.py:constant", "has no function constant"),
        ("broken.py:f", r"raised SyntaxError: [^()]*\(broken.py, line 1\)$"),
        ("signatures.py:one", r"one\(problem, messages\), and its arguments are \(problem\): too"),
        ("signatures.py:three", r"are \(problem, messages, turn\): missing .* 'turn'"),
        ("signatures.py:one", r"; write def one\(problem, messages\)$"),
    ],
)
def test_unusable_function_is_refused_before_the_first_request(functions, name, message):
    (functions / "broken.py").write_text("def f(:")
    (functions / "signatures.py").write_text(
        "def one(problem): ...\ndef three(problem, messages, turn): ..."
    )
    with pytest.raises(ValueError, match=message):
        choice.decide([name], "http://127.0.0.1:9")


def test_retries_are_bounded_and_only_for_what_may_pass():
    retries = Retries(attempts=3, timeouts=2, first_wait=0.001)
    for kind, tries in [("connection", 3), ("server", 3), ("timeout", 2), ("bad_request", 1)]:
        calls = []

        async def call(kind=kind, calls=calls):
            calls.append(1)
            raise PolicyError(kind, "x")

        with pytest.raises(PolicyError):
            asyncio.run(retries.run(call))
        assert len(calls) == tries, kind


def test_retry_waits_as_long_as_the_server_asks():
    times = []

    async def call():
        times.append(time.monotonic())
        if len(times) == 1:
            raise PolicyError("overloaded", "x", retry_after=0.2)
        return "text"

    assert asyncio.run(Retries(first_wait=0.001).run(call)) == "text"
    assert times[1] - times[0] >= 0.2


def test_whoever_goes_away_is_waited_for_until_patience_ends():
    retries = Retries(attempts=2, first_wait=0.001, longest_wait=0.03, patience=0.3)
    back = time.monotonic() + 0.15

    async def call():
        if time.monotonic() < back:
            assert retries.seconds_left() >= 0
            raise PolicyError("connection", "x")
        return "text"

    async def many():
        return await asyncio.gather(*(retries.run(call) for _ in range(8)))

    assert asyncio.run(many()) == ["text"] * 8 and retries.gone_since is None
    back = math.inf
    for least in (0.3, 0.0):  # it is waited for once, not once per request
        begun = time.monotonic()
        with pytest.raises(PolicyError):
            asyncio.run(many())
        assert least <= time.monotonic() - begun < least + 0.25


def test_a_request_that_breaks_a_server_which_answers_others_is_not_waited_for():
    retries = Retries(attempts=3, first_wait=0.001, longest_wait=0.03, patience=60)
    tries = []

    async def breaks():
        tries.append(1)
        raise PolicyError("connection", "x")

    async def answers():
        await asyncio.sleep(0)
        return "text"

    async def both():
        bad = asyncio.create_task(retries.run(breaks))
        while not bad.done():
            assert await retries.run(answers) == "text"
            await asyncio.sleep(0.001)
        return await bad

    with pytest.raises(PolicyError):
        asyncio.run(both())
    assert 3 <= len(tries) < 10
    with pytest.raises(PolicyError, match="bad_request"):
        asyncio.run(retries.run(refuses))


async def refuses():
    raise PolicyError("bad_request", "x")


def test_a_name_that_the_controller_serves_comes_first(functions):
    (functions / "student").mkdir()
    names = ("student", "gpt-3.5-turbo", "functions.py:plain")
    with Wire(lambda _: wire_reply("x"), served=names) as wire:
        kinds = choice.decide(list(names), wire.url)
    assert kinds == dict.fromkeys(names, "worker")


def test_kinds_by_form(functions, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setattr(hub, "unreachable", lambda: None)  # tests have no network
    (functions / "checkpoint").mkdir()
    (functions / "checkpoint" / "config.json").write_text("{}")
    (functions / "checkpoint" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    names = {
        "./checkpoint": "checkpoint",
        "hf:org/name": "checkpoint",
        "m@http://host:8000/v1": "server",
        "gpt-3.5-turbo": "openai",
        "o3-mini": "openai",
        "functions.py:plain": "function",
    }
    with Wire(lambda _: wire_reply("x")) as wire:
        assert choice.decide([*names, "gpt-3.5-turbo"], wire.url) == names


def test_unknown_name_lists_what_is_served(functions):
    with (
        Wire(lambda _: wire_reply("x"), served=("b", "a")) as wire,
        pytest.raises(ValueError, match=f"'my-gpt'.* controller at {wire.url} serves a, b") as e,
    ):
        choice.decide(["my-gpt", "org/name"], wire.url)
    assert "hf:org/name" in str(e.value) and len(str(e.value).splitlines()) == 2


def test_dead_controller_says_how_to_start_one(functions):
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(ValueError, match=f"no controller answers at {address}.* -m fastchat.serve"):
        choice.decide(["student"], address)


def test_directory_without_a_model_is_refused(functions):
    (functions / "empty").mkdir()
    with pytest.raises(ValueError, match=r"without config.json"):
        choice.decide(["empty"], "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "./nowhere is no directory"),
        ("m@http://host:8000", "m@http://host:8000 has no path: .* /v1"),
        ("m@http://host:8000/", "up to and including /v1"),
        ("m@host:8000/v1", "no http:// or https:// behind the @"),
        ("functions.p", r"no directory functions.p, .* \(did you mean functions.py\?\)"),
        ("expert.py", "did you mean expert.py:FUNCTION?"),
        ("./expert.py", "did you mean ./expert.py:FUNCTION?"),
    ],
)
def test_names_that_cannot_be_meant_say_why(functions, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        choice.decide([name], "http://127.0.0.1:9")
    assert len(str(caught.value).splitlines()) == 1


def test_openai_name_without_a_key_is_refused(functions, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"gpt-4.*OPENAI_API_KEY"):
        choice.decide(["gpt-4"], "http://127.0.0.1:9")
    (functions / "keys.cfg").write_text("OTHER: 'x'\nOPENAI_API_KEY: 'sk-1'\n")
    assert choice.decide(["gpt-4"], "http://127.0.0.1:9") == {"gpt-4": "openai"}


def test_probe_names_whoever_does_not_answer():
    config = {"controller_address": "", "request_timeout": 5}
    with OpenAI(lambda _: chat_reply("x")) as server:
        names = f"teacher@{server.url}/v1", f"nobody@{server.url}/v1", "gone@http://127.0.0.1:9/v1"
        kinds = dict.fromkeys(names, "server")
        said = r"^nobody@.*serves teacher, not nobody\ngone@.*start that server, or check"
        with pytest.raises(ValueError, match=said):
            asyncio.run(choice.probe(kinds, config))
        assert server.requests == []


def test_all_are_waited_for_but_workers_that_nobody_starts_again(functions):
    kinds = {"m@http://h/v1": "server", "student": "worker", "./own": "checkpoint"}
    config = {"controller_address": "", "request_timeout": 5, "wait_for_server": 2.0}
    policies = choice.build(kinds, config, {"./own": ("http://127.0.0.1:9", "checkpoint-0")})
    assert [policy.retries.patience for policy in policies.values()] == [120, 120, 0]


def test_a_run_that_has_begun_waits_for_its_workers(caplog):
    config = {"controller_address": "", "request_timeout": 5, "wait_for_server": 1.0}
    with Wire(lambda _: wire_reply("x"), served=()) as wire:
        threading.Timer(0.2, wire.served.append, ["student"]).start()
        config["controller_address"] = wire.url
        asyncio.run(choice.wait_for({"student": "worker", "functions.py:f": "function"}, config))
        assert wire.served
    assert caplog.messages[0].startswith("student does not answer (")
    assert caplog.messages[0].endswith(" and is waited for, 1 minutes at most")


def test_sampling_is_as_published_for_each_kind():
    config = {"models": ["student", "gpt-3.5-turbo"]}
    kinds = {"student": "worker", "gpt-3.5-turbo": "openai"}
    resolved = choice.sampling(kinds, config)
    assert resolved == {"temperature": [1.0, 0.7], "max_new_tokens": [1000, 512]}
    assert choice.sampling(kinds, config | {"temperature": [0.0, 0.5]})["temperature"] == [0.0, 0.5]


@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        ("o3-mini", True),
        ("gpt-5", True),
        ("gpt-5-mini-2025-08-07", True),
        ("gpt-5-chat-latest", False),
        ("gpt-5.2", False),
        ("gpt-4o", False),
    ],
)
def test_a_reasoning_model_of_openai_is_asked_without_a_temperature(model, reasons):
    kinds, config = {model: "openai"}, {"models": [model], "top_p": 1.0}
    defaults = choice.sampling(kinds, config)
    assert defaults["temperature"] == [1.0 if reasons else 0.7]
    assert choice.unavailable_sampling(kinds, config) == []
    given = config | {"temperature": [0.7], "top_p": 0.9}
    problems = choice.unavailable_sampling(kinds, given)
    flags = [problem.split(":")[0] for problem in problems]
    assert flags == (["--temperature 0.7", "--top_p 0.9"] if reasons else [])
    assert choice.unavailable_sampling({model: "worker"}, given) == []
