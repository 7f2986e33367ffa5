"""The environment of scripts/real.sh: the feedback says what the attempt's expression comes to.

python -m pytest tests/unit/scripts/test_calculator.py
"""

import doctest
import json

import pytest

import envs
from rise.episodes.journal import load_episodes
from scripts.real import calculator
from tests.support.stages import ROOT, call

QUESTION = "Ann had 57 pens, Bob 26. How many have they? {question}"


PROBLEM = {"question": QUESTION, "answer": "57+26=83\n#### 83"}


def made(tmp_path, name):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(PROBLEM) + "\n")
    return envs.make(f"scripts/real/calculator.py:{name}", path)


@pytest.fixture
def env(tmp_path):
    return made(tmp_path, "Calculator")


@pytest.fixture
def equations(tmp_path):
    return made(tmp_path, "Equation")


def test_a_run_hears_what_its_expression_comes_to(tmp_path):
    (tmp_path / "problems.jsonl").write_text(json.dumps(PROBLEM) + "\n")
    (tmp_path / "student.py").write_text(
        "def f(problem, messages):\n    return r'\\boxed{57 - 26}'\n"
    )
    place = ROOT / "scripts" / "real" / "calculator.py"
    words = ("--env", f"{place}:Equation", "--max_turns", 2, "--log_dir", "run")
    words += ("--models", "student.py:f", f"{place}:expert", "--prompt_style", "default")
    call(tmp_path, "workflow_gen.py", *words)
    [episode] = load_episodes(tmp_path / "run")
    assert [turn.verdict for turn in episode.turns] == ["no_answer", "right"]
    assert episode.turns[1].action == r"\boxed{57 + 26 = 83}"
    assert "That is incorrect. Try again." in episode.turns[0].observation


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(calculator) == (0, 2)


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (r"\boxed{57 - 83}", "57 - 83 is -26. "),
        (r"\boxed{57 + 26}", "57 + 26 is 83. "),
        (r"It is \boxed{(2 + 1) / 8}.", "(2 + 1) / 8 is 0.38. "),
        (r"\boxed{pens}", ""),
        ("57 + 26", ""),
        (r"\boxed{1 / 0}", ""),
        (r"\boxed{9^9^4}", ""),
    ],
)
def test_feedback_says_the_value_and_the_same_for_right_and_wrong(env, attempt, said):
    assert env.feedback_on(attempt, 0, "wrong") == (
        f"{said}That is incorrect. Try again.\n{QUESTION}"
    )


def test_expressions_are_graded_by_what_they_come_to(env):
    assert env.grade(r"\boxed{26 + 57}", 0).verdict == "right"
    assert env.grade(r"\boxed{57 - 26}", 0).verdict == "wrong"
    assert env.feedback_on(r"\boxed{83}", 0, "right") == "That is correct."


@pytest.mark.parametrize(
    ("attempt", "verdict", "said", "answered"),
    [
        (r"\boxed{57 + 26 = 83}", "right", "57 + 26 is 83. ", r"\boxed{57 + 26 = 83}"),
        (r"\boxed{83 - 0 = 83}", "right", "83 - 0 is 83. ", r"\boxed{83 - 0 = 83}"),
        (r"\boxed{26 + 57 = 73}", "wrong", "26 + 57 is 83, not 73. ", r"\boxed{26 + 57 = 83}"),
        (r"\boxed{57 - 26 = 31}", "wrong", "57 - 26 is 31. ", r"\boxed{57 + 26 = 83}"),
        (r"\boxed{57 - 26 = 83}", "right", "57 - 26 is 31, not 83. ", r"\boxed{57 - 26 = 83}"),
        (r"\boxed{57 + 26}", "no_answer", "", r"\boxed{57 + 26 = 83}"),
        (r"\boxed{57 = 31 + 26}", "no_answer", "57 is 57, not that. ", r"\boxed{57 + 26 = 83}"),
        (r"\boxed{83}", "right", "", r"\boxed{83}"),
        ("83", "no_answer", "", r"\boxed{57 + 26 = 83}"),
    ],
)
def test_of_an_equation_the_result_counts_and_slips_are_named_and_mended(
    equations, attempt, verdict, said, answered
):
    assert equations.grade(attempt, 0).verdict == verdict
    assert equations.feedback_on(attempt, 0, "wrong") == (
        f"{said}That is incorrect. Try again.\n{QUESTION}"
    )
    messages = [{"role": "assistant", "content": attempt}]
    assert calculator.expert(PROBLEM, messages) == answered
    assert calculator.expert(PROBLEM) == r"\boxed{57 + 26 = 83}"
