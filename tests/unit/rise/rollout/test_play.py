"""Episodes: when they stop, what is shown, which sample continues, what an error does.

pytest tests/unit/rise/rollout/test_play.py
"""

import asyncio
import json

import pytest

import envs
from rise.episodes.episode import Episode
from rise.policies.policy import PolicyError
from rise.rollout import play as rollout
from rise.rollout.play import draw_seed, play, run_episodes
from tests.support.run_dirs import open_run_dir
from tests.support.scripted_policy import Scripted, plan_of

RIGHT, WRONG, NONE = "so \\boxed{2}", "so \\boxed{3}", "no idea"


@pytest.fixture
def env(tmp_path):
    rows = [{"question": f"{i}: 1+1?", "answer": "1+1=2\n#### 2"} for i in range(40)]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return envs.make("gsm8k", path, prompt_style="bare", max_turns=5)


def play_one(env, script, turns=3, samples=None, task_id=0, **changes):
    policy = Scripted(script)
    plan = plan_of(policy, turns, samples, **changes)
    episode = asyncio.run(play(env, plan, task_id))
    return episode, policy


def texts(messages):
    return [message["content"] for message in messages]


def test_an_episode_has_the_day_that_its_first_prompt_printed(env):
    student = Scripted(lambda *_: RIGHT)
    plan = plan_of(student, 1, date="2026-01-02")
    student.day = lambda of_run: "2026-03-04"
    assert asyncio.run(play(env, plan, 0)).date == "2026-03-04"
    student.day = lambda of_run: of_run
    assert asyncio.run(play(env, plan, 0)).date == "2026-01-02"


def test_episode_stops_at_its_first_success(env):
    episode, policy = play_one(env, lambda task, turn, i: [NONE, RIGHT, RIGHT][turn])
    assert [turn.verdict for turn in episode.turns] == ["no_answer", "right"]
    assert [turn.reward for turn in episode.turns] == [-1, 1]
    opening = env.opening(0)
    feedback = env.feedback(0, "no_answer")
    assert texts(policy.asked[1]["messages"]) == [*texts(opening), NONE, feedback]
    assert episode.opening == opening
    assert texts(episode.dialogue[len(opening) :]) == [NONE, feedback, RIGHT]
    assert episode.turns[0].usage == {"prompt_tokens": 10, "completion_tokens": 4}


@pytest.mark.parametrize("feedback", ["none", "oracle", "verdict"])
def test_every_record_says_what_the_model_was_told(env, feedback):
    episode, _ = play_one(env, lambda task, turn, i: WRONG, turns=2, feedback=feedback)
    assert episode.to_dict()["feedback"] == feedback
    assert Episode.from_dict(episode.to_dict()) == episode


def test_best_sample_continues_and_the_first_of_equals(env):
    script = {0: [NONE, WRONG, WRONG + "!"], 1: [WRONG, RIGHT, RIGHT]}
    episode, _ = play_one(env, lambda task, turn, i: script[turn][i], 2, [3, 3])
    assert [turn.chosen for turn in episode.turns] == [1, 1]
    assert episode.turns[0].rewards == [-1, 0, 0]
    assert episode.turns[0].observations[0] == env.feedback(0, "no_answer")
    assert episode.turns[0].usage["completion_tokens"] == 12


def test_every_sample_hears_of_its_own_attempt(env):
    class Echo(type(env)):
        def feedback(self, index, verdict, attempt):
            return f"{verdict}: {attempt}"

    echo = Echo(env.problems.path, prompt_style="bare")
    script = {0: [NONE, WRONG], 1: [RIGHT, WRONG]}
    episode, policy = play_one(echo, lambda task, turn, i: script[turn][i], 2, [2, 2])
    assert episode.turns[0].observations == [f"no_answer: {NONE}", f"wrong: {WRONG}"]
    assert texts(policy.asked[1]["messages"])[-1] == f"wrong: {WRONG}"


def test_correct_to_correct_goes_on_after_turn_1_only(env):
    script = {0: RIGHT, 1: RIGHT, 2: RIGHT}
    episode, policy = play_one(env, lambda task, turn, i: script[turn], correct_to_correct=True)
    assert len(episode.turns) == 2
    told = texts(policy.asked[1]["messages"])[-1]
    assert told == env.feedback(0, "wrong") == episode.turns[0].observation
    assert episode.turns[1].observation == env.feedback(0, "right")
    stopped, _ = play_one(env, lambda task, turn, i: script[turn])
    assert len(stopped.turns) == 1


def test_without_an_oracle_every_turn_is_told_wrong_and_the_first_sample_continues(env):
    script = {0: [WRONG, RIGHT], 1: [RIGHT], 2: [NONE]}
    episode, policy = play_one(
        env, lambda task, turn, i: script[turn][i], 3, [2, 1, 1], feedback="none"
    )
    assert [turn.verdict for turn in episode.turns] == ["wrong", "right", "no_answer"]
    assert episode.turns[0].chosen == 0 and episode.turns[0].verdicts == ["wrong", "right"]
    assert {turn.observation for turn in episode.turns} == {env.feedback(0, "wrong")}
    assert texts(policy.asked[2]["messages"])[-4::2] == [WRONG, RIGHT]


def test_window_limits_what_is_shown_but_not_what_is_recorded(env):
    episode, policy = play_one(env, lambda *_: WRONG, feedback="none", context_window=2)
    opening = len(env.opening(0))
    assert [len(asked["messages"]) - opening for asked in policy.asked] == [0, 2, 2]
    assert len(episode.dialogue) == opening + 5


def test_error_is_typed_and_never_a_text(env):
    episode, _ = play_one(
        env, lambda task, turn, i: WRONG if turn == 0 else PolicyError("timeout", "too slow")
    )
    assert episode.error == {"kind": "timeout", "message": "too slow", "turn": 2}
    assert [turn.actions for turn in episode.turns] == [[WRONG]]
    assert "too slow" not in json.dumps(episode.to_dict()["turn_history"])


def test_seeds_depend_on_run_problem_and_turn_only(env):
    _, policy = play_one(env, lambda task, turn, i: WRONG, seed=5, task_id=3)
    assert [asked["seed"] for asked in policy.asked] == [draw_seed(5, 3, t) for t in range(3)]
    seeds = {draw_seed(r, p, t) for r in range(3) for p in range(50) for t in range(5)}
    assert len(seeds) == 750
    assert all(0 <= seed < 2**31 - 4096 for seed in seeds)


def test_another_problems_attempt_is_shown_and_recorded(env):
    shown = {4: [{"task_id": 9, "action": "9 at 0"}, {"task_id": 9, "action": "9 at 1"}]}
    told = {"feedback": "none", "shown": shown}
    episode, policy = play_one(env, lambda task, turn, i: f"{task} at {turn}", task_id=4, **told)
    opening = len(env.opening(4))
    assert texts(policy.asked[-1]["messages"][opening:])[::2] == ["9 at 0", "9 at 1"]
    assert env.question(4) in policy.asked[-1]["messages"][-1]["content"]
    assert [turn.shown for turn in episode.turns] == [*shown[4], None]
    assert episode.turns[0].action == "4 at 0"


def roll(env, run, policy, **changes):
    owed = [task for task in range(len(env)) if task not in run.done]
    reported = []
    concurrency = changes.pop("concurrency", 8)
    plan = plan_of(policy, 2, **changes)
    trouble = asyncio.run(
        run_episodes(env, plan, run, owed, concurrency=concurrency, report=reported.append)
    )
    return trouble is None, reported


def test_no_more_than_concurrency_episodes_are_in_flight(env, tmp_path):
    policy = Scripted(lambda task, turn, i: WRONG)
    with open_run_dir(tmp_path / "run", {}, 2) as run:
        complete, reported = roll(env, run, policy, concurrency=5)
    assert complete and len(reported) == 40
    assert policy.most_in_flight == 5 and policy.closed == 1


def test_errors_are_owed_again_and_the_result_is_that_of_an_undisturbed_run(env, tmp_path):
    def script(task, turn, i):
        return RIGHT if (task + turn) % 3 == 0 else WRONG

    def flaky(task, turn, i):
        return PolicyError("connection", "gone") if task % 4 == turn else script(task, turn, i)

    with open_run_dir(tmp_path / "flaky", {}, 2) as run:
        complete, _ = roll(env, run, Scripted(flaky))
        assert complete and 0 < len(run.done) < 40
        roll(env, run, Scripted(script))
        resumed = list(run.episodes())
    with open_run_dir(tmp_path / "whole", {}, 2) as run:
        roll(env, run, Scripted(script))
        assert resumed == list(run.episodes()) and len(resumed) == 40


def test_run_is_given_up_when_nobody_answers_any_more(env, tmp_path, monkeypatch):
    monkeypatch.setattr(rollout, "GIVE_UP_AFTER", 6)
    policy = Scripted(lambda task, turn, i: PolicyError("connection", "gone"))
    with open_run_dir(tmp_path / "run", {}, 2) as run:
        complete, reported = roll(env, run, policy, concurrency=3)
    assert not complete and 6 <= len(reported) < 12


@pytest.mark.parametrize("kind", ["not_found", "quota", "unauthorized", "setup"])
def test_run_ends_at_the_first_error_that_every_request_would_have(env, tmp_path, kind):
    policy = Scripted(lambda task, turn, i: PolicyError(kind, "no") if task == 4 else RIGHT)
    with open_run_dir(tmp_path / "run", {}, 2) as run:
        complete, reported = roll(env, run, policy, concurrency=2)
        assert not complete and len(reported) <= 6 and 4 not in run.done


def test_unexpected_error_ends_the_run_and_keeps_what_is_finished(env, tmp_path):
    def script(task, turn, i):
        if task == 20:
            raise ZeroDivisionError
        return RIGHT

    policy = Scripted(script)
    with open_run_dir(tmp_path / "run", {}, 2) as run:
        with pytest.raises(ZeroDivisionError):
            roll(env, run, policy, concurrency=2)
        assert run.done >= set(range(19)) and policy.closed == 1
