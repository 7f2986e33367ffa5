r"""What is said after an attempt: true verdicts, the model's own ones, its own critique.

pytest tests/unit/rise/episodes/test_feedback.py
"""

import asyncio
import json

import pytest

import envs
from rise.episodes.episode import Episode
from rise.episodes.shorthand import sketch
from rise.metrics import votes
from rise.metrics.comparison import cost
from rise.metrics.evaluation import measured
from rise.metrics.summary import summarise
from rise.metrics.tables import format_table
from rise.policies.policy import PolicyError
from rise.rollout.play import draw_seed, play
from rise.runs.tally import Tally
from tests.support.scripted_policy import Scripted, plan_of

RIGHT, WRONG = "so \\boxed{2}", "so \\boxed{3}"
SAYS_RIGHT, SAYS_WRONG = "I see no fault: \\boxed{right}", "1+1 is no 3: \\boxed{wrong}"


@pytest.fixture
def env(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text('{"question": "1+1?", "answer": "1+1=2\\n#### 2"}\n')
    return envs.make("gsm8k", path, prompt_style="bare")


def play_one(env, mode, answers, judgements=(), samples=None, **changes):
    """An episode in which these are said one after the other, and the texts of each request."""
    texts, judged = iter(answers), iter(judgements)
    requests = (env.text("judge", 0), env.text("critique", 0))

    def said(*_):
        asked = policy.asked[-1]["messages"][-1]["content"]
        return next(judged if asked in requests else texts)

    policy = Scripted(said)
    plan = plan_of(policy, len(samples or answers), samples, feedback=mode, **changes)
    episode = asyncio.run(play(env, plan, 0))
    policy.seeds = [each["seed"] for each in policy.asked]
    policy.asked = [[m["content"] for m in each["messages"]] for each in policy.asked]
    return episode, policy


def test_verdict_tells_the_truth_and_plays_all_turns(env):
    answers = [WRONG, RIGHT, "no idea", RIGHT, WRONG, WRONG]
    episode, policy = play_one(env, "verdict", answers, samples=[2, 1, 1, 1, 1])
    # Of turn 1 the right sample continues, as the reference is known anyway.
    assert [turn.verdict for turn in episode.turns] == [
        *("right", "no_answer", "right", "wrong", "wrong")
    ]
    again, no_answer = env.text("right_again", 0), env.feedback(0, "no_answer")
    assert [turn.observation for turn in episode.turns[:3]] == [again, no_answer, again]
    assert policy.asked[1] == ["1+1?", RIGHT, again]


def test_self_asks_the_model_and_tells_it_what_it_said(env):
    answers = [RIGHT, WRONG, RIGHT, WRONG, RIGHT]
    said = [SAYS_RIGHT, SAYS_WRONG, "hard to say"]
    episode, policy = play_one(env, "self", answers, said, samples=[2, 1, 1, 1])
    judge, again, wrong = env.text("judge", 0), env.text("right_again", 0), env.feedback(0, "wrong")
    # The first sample continues, since nobody knows which one is best; only it is judged.
    assert policy.asked[0] == ["1+1?"]
    assert policy.asked[1] == ["1+1?", RIGHT, judge]
    assert policy.asked[2] == ["1+1?", RIGHT, again]
    assert policy.asked[3] == ["1+1?", RIGHT, judge]
    assert policy.asked[4] == ["1+1?", RIGHT, again, RIGHT, wrong]
    assert episode.turns[0].observations == [again, ""]
    assert [turn.check and turn.check["says"] for turn in episode.turns] == [
        *("right", "wrong", "unclear", None)
    ]
    assert episode.turns[2].observation == wrong and len(policy.asked) == 7
    assert [m["content"] for m in episode.dialogue[:3]] == ["1+1?", RIGHT, again]
    assert policy.seeds[1] == draw_seed(0, 0, 0, "/check") and len(set(policy.seeds)) == 7


def test_critique_is_read_by_the_next_attempt(env):
    episode, policy = play_one(env, "critique", [WRONG, RIGHT], [SAYS_WRONG])
    assert policy.asked[1] == ["1+1?", WRONG, env.text("critique", 0)]
    told = env.text("refine", 0, critique=SAYS_WRONG)
    assert SAYS_WRONG in told and policy.asked[2] == ["1+1?", WRONG, told]
    assert episode.turns[0].observation == told
    assert [m["content"] for m in episode.dialogue] == ["1+1?", WRONG, told, RIGHT]


@pytest.mark.parametrize("mode", ["self", "critique"])
def test_an_answer_that_is_called_right_stands_and_nobody_is_asked_again(env, mode):
    samples = [1, 1, 1, 1]
    episode, policy = play_one(
        env, mode, [WRONG, RIGHT], [SAYS_WRONG, SAYS_RIGHT], samples, revise_if_wrong=True
    )
    assert len(policy.asked) == 4
    assert [turn.action for turn in episode.turns] == [WRONG, RIGHT, RIGHT, RIGHT]
    assert [turn.kept for turn in episode.turns] == [False, False, True, True]
    assert len(episode.dialogue) == 4 and episode.opening == env.opening(0)
    assert Episode.from_dict(json.loads(json.dumps(episode.to_dict()))) == episode
    tally = Tally(4, cumulative=False)
    tally.add(episode)
    spent = {"samples": 2, "prompt_tokens": 40, "completion_tokens": 16}
    assert tally.usage["scripted"] == {"requests": 4, **spent}
    assert cost([episode], turns=True) == spent
    found = summarise([episode], str.__eq__, max_turns=4, feedback=mode).metrics
    assert found["m1@t4"]["value"] == 1 and found["revisions"]["value"] == 1
    assert found["copied"] == [None, found["copied"][1], None, None]


def test_records_of_other_runs_have_no_new_keys(env):
    episode, _ = play_one(env, "none", [WRONG, RIGHT])
    assert not {"check", "kept", "sees", "shown"} & episode.to_dict()["turn_history"].keys()


def test_a_judgement_that_fails_ends_the_episode_at_the_next_turn(env):
    error = PolicyError("context_overflow", "too long")
    episode, _ = play_one(env, "self", [WRONG, RIGHT, RIGHT], [error])
    assert episode.error["turn"] == 2 and not episode.is_owed
    assert [turn.action for turn in episode.turns] == [WRONG]
    config = {"max_turns": 3, "num_of_samples": [1, 1, 1], "feedback": "self"}
    assert len(measured(episode, config).turns) == 3
    owed, _ = play_one(env, "self", [WRONG, RIGHT], [PolicyError("server", "gone")])
    assert owed.is_owed


# Three turns of four problems; behind each checked answer what the model said of it.
#   0  w7 "wrong", r5 "right", stands     1  r5 "right", stands, stands
#   2  w7 "right", stands, stands         3  r5 "wrong", w7 "unclear", w8
def gated_run():
    run = sketch("w7 r5 r5", "r5 r5 r5", "w7 w7 w7", "r5 w7 w8")
    for task_id, turn in [(0, 3), (1, 2), (1, 3), (2, 2), (2, 3)]:
        run[task_id].turns[turn - 1].kept = True
    said = {(0, 1): "wrong", (0, 2): "right", (1, 1): "right", (2, 1): "right"}
    said |= {(3, 1): "wrong", (3, 2): "unclear"}
    for (task_id, turn), says in said.items():
        run[task_id].turns[turn - 1].check = {"says": says, "usage": {}}
    return run


def values(rates):
    return [rate and (rate["value"], rate["n"]) for rate in rates]


def test_checks_and_revisions_worked_by_hand():
    found = summarise(gated_run(), str.__eq__, max_turns=3, feedback="self").metrics
    # Turn 1: problems 0 and 3 are called wrong, of which 0 is; of the wrong ones, 0 and 2, one is
    # found. Turn 2: only 0 and 3 are checked; 3 is called wrong and is.
    assert values(found["check"]["precision"]) == [(1 / 2, 2), (1, 1)]
    assert values(found["check"]["recall"]) == [(1 / 2, 2), (1, 1)]
    assert values(found["check"]["unclear"]) == [(0, 4), (1 / 2, 2)]
    assert (found["revisions"]["value"], found["revisions"]["n"]) == (3 / 4, 4)
    assert [rate["value"] for rate in found["acc@t"]] == [2 / 4, 2 / 4, 2 / 4]
    # Votes: 7 5 5 -> right, 5 5 5 -> right, 7 7 7 -> wrong, 5 7 8 -> the first, right.
    assert found["m1@t3"]["value"] == 3 / 4
    assert (found["i->c"]["1,2"]["value"], found["c->i"]["1,2"]["value"]) == (1 / 4, 1 / 4)
    assert values(found["copied"]) == [None, (0, 2), (0, 1)]
    lines = format_table(found).splitlines()
    assert (
        "own check: 0.75 revisions per problem; wrong where it says so 50.0 -> 100.0 %" in lines[-3]
    )
    assert "50.0 % of the checks of turn 2 say neither" in lines[-1]
    run = gated_run()
    for episode in run:
        if episode.turns[1].check:
            episode.turns[1].check = {"says": "unclear", "usage": {}}
    table = format_table(summarise(run, str.__eq__, max_turns=3, feedback="self").metrics)
    assert "wrong where it says so 50.0 -> - %, wrong ones found 50.0 -> - %" in table


@pytest.mark.parametrize("mode", ["verdict", "oracle"])
def test_no_vote_over_turns_that_know_the_truth(mode):
    run = sketch("w7 r5", "w7 w8")
    found = summarise(run, str.__eq__, max_turns=2, feedback=mode).metrics
    assert "m1@t2" not in found and "gain" not in found and not found["paired"]
    assert found["p1@t2"]["value"] == 1 / 2
    with pytest.raises(ValueError, match="--feedback none, self or critique"):
        votes.m1_tk(run, str.__eq__, 2, mode)
    best = sketch("w7 w7,r5", "w7 w8,w9")
    best[0].turns[1].chosen = 1
    found = summarise(best, str.__eq__, max_turns=2, feedback=mode).metrics
    assert not {"p1@t2", "delta", "i->c"} & found.keys()


def test_a_verdict_run_counts_each_turn_by_itself():
    run = sketch("r5 w7", "w7 r5", "r5 r5", "w7 w7")
    found = summarise(run, str.__eq__, max_turns=2, feedback="verdict").metrics
    assert [rate["value"] for rate in found["acc@t"]] == [2 / 4, 2 / 4]
    assert found["c->i"]["1,2"]["value"] == 1 / 4
    assert "Told whether it was right" in format_table(found)
