"""The environment of scripts/real.sh: the feedback says what the attempt's expression comes to.

python -m pytest tests/unit/scripts/test_calculator.py
"""

import doctest
import json

import pytest

import envs
from scripts.real import calculator

QUESTION = "Ann had 57 pens, Bob 26. How many have they? {question}"


@pytest.fixture
def env(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps({"question": QUESTION, "answer": "57+26=83\n#### 83"}) + "\n")
    return envs.make("scripts/real/calculator.py:Calculator", path)


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(calculator) == (0, 1)


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
