r"""--feedback, --revise_if_wrong and --expert_sees through the scripts.

pytest tests/unit/test_feedback_modes.py
"""

import json

import pytest

from rise.episodes.journal import load_episodes
from rise.metrics.evaluation import open_run
from tests.support.conversion import convert, read
from tests.support.scripted_servers import Wire, wire_reply
from tests.support.stages import call, write_inputs

PEOPLE = r"""
def right(problem):
    return "It is \\boxed{" + problem["answer"].split("#### ")[1] + "}"

def student(problem, messages):
    'Right at once for even problems, at the second attempt for 1, 5, ...; calls 3, 7, ... right.'
    task, text = problem["task_id"], messages[-1]["content"]
    attempts = sum(m["role"] == "assistant" for m in messages)
    if "verdict" in text:
        good = messages[-2]["content"] == right(problem) or task % 4 == 3
        return "My verdict: \\boxed{" + ("right" if good else "wrong") + "}"
    is_right = task % 2 == 0 or (task % 4 == 1 and attempts)
    return right(problem) if is_right else "It is \\boxed{99}"

def expert(problem, messages):
    'Right where it was shown the reference; else it says how much it was shown.'
    shown = messages[-1]["content"]
    if "#### " in shown:
        return right(problem)
    return f"I saw {len(messages)} messages: \\boxed{{99}}"
"""


@pytest.fixture
def place(tmp_path):
    write_inputs(tmp_path, problems=8)
    (tmp_path / "people.py").write_text(PEOPLE)
    return tmp_path


def evaluate(place, *arguments, code=0):
    student = ("--model", "people.py:student", "--log_dir", "log", "--max_turns", 3)
    return call(place, "workflow_eval.py", *student, *arguments, code=code)


def test_gated_revision_as_a_user_runs_it(place):
    done = evaluate(place, "--feedback", "self", "--revise_if_wrong")
    found = json.loads((place / "log" / "summary.json").read_text())
    metrics = found["metrics"]
    # Problems 0, 2, 4, 6 are right at once; 1 and 5 are called wrong and mended; 3 and 7 are wrong
    # and called right. Nobody is asked after that.
    assert [rate["value"] for rate in metrics["acc@t"]] == [4 / 8, 6 / 8, 6 / 8]
    assert metrics["revisions"]["value"] == 2 / 8
    assert [rate["value"] for rate in metrics["check"]["recall"][:1]] == [2 / 4]
    assert [rate["value"] for rate in metrics["check"]["precision"][:1]] == [1.0]
    assert metrics["check"]["precision"][1] is None
    # Each of 1 and 5: two answers, two judgements; the others: one of each.
    assert found["usage"]["people.py:student"]["requests"] == 2 * 4 + 6 * 2
    assert found["usage"]["people.py:student"]["samples"] == 10
    assert found["config"]["revise_if_wrong"] and found["config"]["feedback"] == "self"
    assert "own check: 0.25 revisions per problem" in done.stdout
    assert "m1@t3 - m1@t1" in done.stdout
    assert open_run(place / "log").metrics == metrics
    assert "revise_if_wrong: True -> None" in evaluate(place, "--feedback", "self", code=2).stderr


def test_a_run_that_judges_itself_agrees_with_its_parallel_run(place):
    evaluate(place, "--feedback", "critique")
    done = evaluate(place, "--max_turns", 1, "--num_of_samples", 3)
    assert "m3@t1" in json.loads((place / "log" / "summary.json").read_text())["metrics"]
    assert "m1@t3 - m3@t1" in done.stdout


def test_a_worker_is_asked_for_its_judgement_and_the_forecast_knows(place):
    def answer(body):
        if "verdict" in body["messages"][-1]["content"]:
            return wire_reply("\\boxed{wrong}")
        return wire_reply("\\boxed{0}")

    with Wire(answer) as wire:
        arguments = ("--model", "student", "--max_turns", 2, "--limit", 3, "--max_new_tokens", 20)
        arguments += ("--feedback", "self", "--controller_address", wire.url, "--log_dir", "log")
        planned = call(place, "workflow_eval.py", *arguments, "--dry-run")
        call(place, "workflow_eval.py", *arguments)
    assert "student: 9 answers, 180 new tokens" in planned.stdout
    assert sorted(len(body["messages"]) for body in wire.requests) == [1] * 3 + [3] * 6
    usage = json.loads((place / "log" / "summary.json").read_text())["usage"]["student"]
    assert usage == {"requests": 9, "samples": 6, "prompt_tokens": 63, "completion_tokens": 27}


@pytest.mark.parametrize(
    ("sees", "said"),
    [("none", "I saw 1 messages"), ("feedback", "I saw 3 messages"), ("reference", "It is ")],
)
def test_what_the_expert_sees_changes_its_answer_and_never_the_training_prompt(place, sees, said):
    models = ("--models", "people.py:student", "people.py:expert", "--max_turns", 2)
    call(place, "workflow_gen.py", *models, "--log_dir", "run", "--expert_sees", sees)
    [turns] = [episode.turns for episode in load_episodes(place / "run") if episode.task_id == 1]
    assert [turn.sees for turn in turns] == [None, None if sees == "feedback" else sees]
    assert turns[1].action.startswith(said)
    assert json.loads((place / "run" / "config.json").read_text())["expert_sees"] == sees
    assert convert("--filepath", place / "run", "--output", place / "rows.json") == 0
    [row] = [row for row in read(place / "rows.json") if row["id"] == "0-1-2"]
    question = "What is 1 + 1?"
    retry = f"The answer is incorrect. Please try again. {question}"
    assert [turn["value"] for turn in row["conversations"]] == [
        *(question, "It is \\boxed{99}", retry, turns[1].action)
    ]


def test_right_answers_to_the_hint_become_first_answers(place):
    """STaR: what the model says when it was shown the reference is trained without it."""
    models = ("--models", "people.py:expert", "--max_turns", 2, "--log_dir", "run")
    call(place, "workflow_gen.py", *models, "--expert_sees", "reference")
    single = ("--criteria", "success", "--weighting", "none", "--context_window", 1)
    assert convert("--filepath", place / "run", "--output", place / "star.json", *single) == 0
    rows = read(place / "star.json")
    texts = [[turn["value"] for turn in row["conversations"]] for row in rows]
    assert texts == [[f"What is {i} + 1?", f"It is \\boxed{{{i + 1}}}"] for i in range(8)]


def test_generation_without_an_oracle_still_learns_from_the_best_sample(place):
    (place / "people.py").write_text(
        PEOPLE + "\ncalls = iter(range(99))\n"
        "def lottery(problem, messages):\n"
        "    return right(problem) if next(calls) % 3 == 2 else 'no idea'\n"
    )
    words = ("--models", "people.py:lottery", "--max_turns", 2, "--num_of_samples", 3)
    words += ("--log_dir", "run", "--feedback", "none", "--concurrency", 1)
    done = call(place, "workflow_gen.py", *words)
    turns = [turn for episode in load_episodes(place / "run") for turn in episode.turns]
    assert len(turns) == 16 and {(turn.chosen, turn.verdict) for turn in turns} == {(2, "right")}
    assert "right at turn 2: 100.0 %" in done.stdout
