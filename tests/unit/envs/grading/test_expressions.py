r"""MATH answers: equal expressions are right, near misses are wrong.

    python -m pytest tests/unit/envs/grading/test_expressions.py

``tests/support/grading/math.jsonl`` holds hand-written responses with the verdict that a careful
reader gives them, ``kinds.jsonl`` and ``notations.jsonl`` ways to write one answer and near misses,
``letters.jsonl`` letters that could be units or variables. A failure lists every such row.
"""

import pytest

from envs.grading.expressions import compare
from envs.grading.questions import Question
from tests.support.grading_rows import faults_of, read_rows

KNOWN_ERRORS = {(r"\boxed{10:30}", r"\boxed{\frac13}", "wrong"): "a time of day is read as a ratio"}
"""Rows that are graded against their label."""


def labelled(name: str) -> list[tuple[str, str, str]]:
    rows = [(row["reference"], row["response"], row["label"]) for row in read_rows(name)]
    return [row for row in rows if row not in KNOWN_ERRORS]


@pytest.mark.parametrize("name", ["math", "kinds", "letters", "notations"])
def test_the_verdict_is_a_careful_readers(name):
    assert faults_of(labelled(name)) == []


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=pytest.mark.xfail(reason=why, strict=True))
        for row, why in KNOWN_ERRORS.items()
    ],
)
def test_known_errors(row):
    assert faults_of([row]) == []


def test_common_answers_never_reach_math_verify():
    easy = [
        ("2005", "2,005"),
        (r"\frac{1}{2}", "0.5"),
        (r"\frac{1}{2}", r"\dfrac{2}{4}"),
        (r"\frac{1}{2}", "2"),
        (r"10\sqrt{2}", r"10\sqrt 2"),
        (r"\text{odd}", "even"),
        ("(4,5)", "(5, 4)"),
        ("1,2", "2, 1"),
        ("[0,1)", "[0,1]"),
        ("3032_5", "3032_6"),
        ("120^\\circ", "120"),
        (r"\begin{pmatrix} 6/5 \\ 1 \end{pmatrix}", r"\frac15\begin{bmatrix} 6 \\ 5 \end{bmatrix}"),
    ]
    assert [pair for pair in easy if isinstance(compare(pair[1], pair[0]), Question)] == []


@pytest.mark.parametrize("text", ["x" * 1001, "1" * 5000, r"\frac{1}{2}" + " " * 1000 + "x"])
def test_a_text_too_long_to_compare_is_wrong_unless_it_is_the_same(text):
    assert compare(text, text) == "right"
    assert compare(text, "1") == "wrong"
