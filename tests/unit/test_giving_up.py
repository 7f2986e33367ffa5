"""Problems that a server refuses for good: some answers, or all of them.

pytest tests/unit/test_giving_up.py
"""

import json

import pytest
from aiohttp import web

from rise.episodes.journal import load_episodes
from rise.rollout import play
from tests.support.scripted_servers import OpenAI, chat_reply
from tests.support.stages import call, write_inputs


@pytest.fixture
def place(tmp_path):
    write_inputs(tmp_path, problems=6)
    return tmp_path


def summary(place):
    return json.loads((place / "log" / "summary.json").read_text())


def test_a_filtered_sample_is_not_right_has_no_vote_and_leaves_the_other_samples(place):
    def answer(body):
        reply = chat_reply(*["\\boxed{4}"] * 3)
        if "What is 3 + 1?" in body["messages"][0]["content"]:
            for choice in reply["choices"][:2]:
                choice["finish_reason"] = "content_filter"
        return reply

    with OpenAI(answer) as server:
        model = f"teacher@{server.url}/v1"
        arguments = ("--max_turns", 1, "--num_of_samples", 3, "--model", model)
        call(place, "workflow_eval.py", *arguments, "--log_dir", "log")
    rows = map(json.loads, (place / "log" / "rows.jsonl").read_text().splitlines())
    sizes = {row["task_id"]: len(row["turn_history"]["actions"]["0"]) for row in rows}
    assert sizes == {0: 3, 1: 3, 2: 3, 3: 1, 4: 3, 5: 3}
    (right,) = (e for e in load_episodes(place / "log") if e.task_id == 3)
    assert right.turns[0].verdicts == ["right"] and right.turns[0].filtered == [0, 1]
    metrics = summary(place)["metrics"]
    assert metrics["m3@t1"]["n"] == 6 and metrics["m3@t1"]["value"] == 1 / 6
    # The first sample of that problem is one of the two that were filtered.
    assert metrics["m1@t1"]["value"] == 0
    assert metrics["pass@k"]["1"]["value"] == pytest.approx(1 / 3 / 6)


def test_what_is_refused_again_and_again_does_not_keep_the_others_from_being_asked(
    place, monkeypatch
):
    monkeypatch.setattr(play, "GIVE_UP_AFTER", 2)
    (place / "experts.py").write_text(
        "def f(problem, messages):\n"
        "    if problem['task_id'] < 3: raise RuntimeError('no')\n"
        "    return '5'\n"
    )
    words = ("--max_turns", 1, "--models", "experts.py:f", "--log_dir", "log", "--concurrency", 1)
    assert "Given up after many failures" in call(place, "workflow_gen.py", *words, code=1).stdout
    assert not load_episodes(place / "log")
    call(place, "workflow_gen.py", *words, code=1)
    assert {episode.task_id for episode in load_episodes(place / "log")} == {3, 4, 5}


@pytest.fixture
def gen(place):
    """A run whose server filters problems 1, 3 and 5 until the file `willing` is there."""

    def answer(body):
        is_odd = any(f"What is {i} + 1?" in str(body["messages"]) for i in (1, 3, 5))
        if is_odd and not (place / "willing").exists():
            return chat_reply("half", reason="content_filter")
        return chat_reply("\\boxed{4}")

    with OpenAI(answer) as server:
        model = ("--max_turns", 1, "--models", f"teacher@{server.url}/v1", "--log_dir", "log")
        yield lambda code: call(place, "workflow_gen.py", *model, code=code).stdout


def test_an_episode_that_was_refused_in_three_calls_is_final_no_data_and_not_right(place, gen):
    for _ in range(2):
        refused = gen(1)
        assert "3 of 6 episodes are in log" in refused
        assert "3 of them were refused" in refused and "in 3 calls" in refused
    assert "3 of 6 episodes ended because they were refused" in gen(0)
    found = summary(place)
    assert found["counts"] == {"problems": 6, "finished": 6, "owed": 0}
    assert found["unanswered"] == found["given_up"] == 3
    assert found["success_by_turn"][0]["n"] == 6 and found["success_by_turn"][0]["value"] == 0
    assert {episode.task_id for episode in load_episodes(place / "log")} == {0, 2, 4}
    assert json.loads((place / "log" / "1_turns.json").read_text()).keys() == {"0", "2", "4"}
    (place / "willing").touch()
    assert "nobody was asked" in gen(0) and summary(place) == found


def test_an_answer_in_time_counts(place, gen):
    gen(1), gen(1)
    (place / "willing").touch()
    gen(0)
    assert (summary(place)["given_up"], len(load_episodes(place / "log"))) == (0, 6)


def test_an_error_that_may_pass_is_never_given_up(place):
    def answer(body):
        return web.Response(status=401) if "3 + 1" in str(body) else chat_reply("\\boxed{1}")

    with OpenAI(answer) as server:
        model = ("--max_turns", 1, "--models", f"teacher@{server.url}/v1", "--log_dir", "log")
        for _ in range(4):
            done = call(place, "workflow_gen.py", *model, code=1)
    assert "failed: unauthorized 1" in done.stdout
    assert "refused" not in done.stdout and summary(place)["given_up"] == 0


def test_an_exception_of_a_function_is_owed_until_its_file_is_mended_which_is_another_model(place):
    words = ("--max_turns", 1, "--models", "experts.py:f", "--log_dir", "log")
    (place / "experts.py").write_text("def f(problem, messages): return {}['x']\n")
    for _ in range(4):
        broken = call(place, "workflow_gen.py", *words, code=1)
    assert "failed: function 6" in broken.stdout
    assert "refused" not in broken.stdout and not (place / "log" / "1_turns.json").exists()
    (place / "experts.py").write_text("def f(problem, messages): return '5'\n")
    call(place, "workflow_gen.py", *words)
    (place / "experts.py").write_text("def f(problem, messages): return '6'\n")
    other = call(place, "workflow_gen.py", *words, code=2)
    assert "experts.py:f has changed since): give" in other.stderr


def test_evaluation_counts_what_is_given_up_in_every_rate(place):
    def answer(body):
        if "3 + 1" in body["messages"][0]["content"] and len(body["messages"]) > 1:
            return chat_reply("half", reason="content_filter")
        return chat_reply("\\boxed{4}")

    with OpenAI(answer) as server:
        arguments = ("--model", f"teacher@{server.url}/v1", "--log_dir", "log", "--max_turns", 3)
        for code in (1, 1, 0):
            call(place, "workflow_eval.py", *arguments, code=code)
    found = summary(place)
    assert found["given_up"] == 1
    rates = found["metrics"]["acc@t"]
    assert [(rate["n"], rate["value"]) for rate in rates] == [(6, 1 / 6), (6, 0), (6, 0)]
    assert found["metrics"]["p1@t3"]["value"] == found["metrics"]["m1@t1"]["value"] == 1 / 6


def test_whoever_refuses_everything_does_not_use_up_the_problems(place):
    write_inputs(place, problems=300)
    with OpenAI(lambda _: web.json_response({"error": "Bad Request"}, status=400)) as server:
        model = ("--max_turns", 1, "--models", f"teacher@{server.url}/v1", "--log_dir", "log")
        done = call(place, "workflow_gen.py", *model, "--concurrency", 8, code=1)
    assert "Stopped at once" in done.stdout
    assert "0 of 300 episodes" in done.stdout and "to every form of a request" in done.stdout
    assert len(server.requests) < 35
