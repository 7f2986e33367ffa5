r"""MATH answers: equal expressions are right, near misses are wrong.

    python -m pytest tests/unit/envs/grading/test_expressions.py

``tests/support/grading/math.jsonl`` holds hand-written responses with the verdict that a careful
reader gives them, ``kinds.jsonl`` notations and their near misses, ``LETTERS`` the ones where a
letter could be a unit or a variable. Each test lists every row that is graded otherwise.
"""

import pytest

from envs.grading.expressions import Question, compare
from tests.support.grading_rows import faults_of, read_rows

LETTERS = [
    # the last variable of an expression is no unit
    ("x+2c", "x+2d", "wrong"),
    ("6-5c", "1", "wrong"),
    ("6-5c", "-5c+6", "right"),
    ("1", "6-5c", "wrong"),
    ("-15+8h", "-7", "wrong"),
    ("20-5t", "15", "wrong"),
    ("10+2d", "12", "wrong"),
    ("6", "6ab", "wrong"),
    ("6ab", "6", "wrong"),
    ("2ab", "2ba", "right"),
    (r"bc \cdot 4", "4bc", "right"),
    (r"\pi", r"\pi h", "wrong"),
    (r"10\sqrt{2}m", r"10\sqrt{2}", "wrong"),
    # nor are letters beside a number
    ("2abc", "2", "wrong"),
    ("2abc", "2xyz", "wrong"),
    ("2abc", "2bca", "right"),
    ("2abc^2", "2", "wrong"),
    ("2", "2 abc", "wrong"),
    ("2", "2 a b", "wrong"),
    ("2", "2 ab cd", "wrong"),
    ("2", "2sinx", "wrong"),
    ("9g", "9h", "wrong"),
    ("2s", "2m", "wrong"),
    ("5", "5m", "wrong"),
    ("2", "2st", "wrong"),
    ("-2", "-2abc", "wrong"),
    (r"\frac{1}{2}mgh", r"\frac12", "wrong"),
    (r"\frac{1}{2} mgh", r"\frac12", "wrong"),
    ("3", "3x/y", "wrong"),
    ("3", "3/x", "wrong"),
    ("5", "5 km/x", "wrong"),
    ("5", "5-h", "wrong"),
    ("1", "6 - 5 m", "wrong"),
    ("5", "5, m", "wrong"),
    ("-2", "xy - 2", "wrong"),
    ("5", r"5 \text{ times } x", "wrong"),
    ("5", r"5 \text{ times } 3", "wrong"),
    # units, which do not count
    ("5", r"5\text{ cm}", "right"),
    ("5", r"5\text{ m}", "right"),
    ("5", "5 cm", "right"),
    ("5", "5cm", "right"),
    ("5", "5 m", "right"),
    ("5m", r"5\text{ m}", "right"),
    (r"5\text{ m}", "5m", "right"),
    ("5", "5m/s", "right"),
    ("5", r"5\,\text{m}/\text{s}", "right"),
    ("5", "5 mph", "right"),
    ("5", r"\$5/hour", "right"),
    ("5", r"\$5", "right"),
    ("5", r"5\text{ times}", "right"),
    ("10", "10 a week", "right"),
    ("10", "10 a.m.", "right"),
    ("12", r"12\,\mathrm{m}^2", "right"),
    ("12", "12 cm^2", "right"),
    ("12", "12-inch", "right"),
    ("1500", "1.5e3 cm", "right"),
    ("90", r"90^\circ", "right"),
    ("90", r"90^\circ C", "right"),
    ("60", "60degrees", "right"),
    ("4", "4th", "right"),
    ("50", r"50\%", "right"),
    ("-5", "The answer is -5", "right"),
    (r"10\sqrt{2}", r"10\sqrt{2}\text{ cm}^2", "right"),
    (r"10\sqrt{2}", r"10\sqrt{2}\text{ (approx.)}", "right"),
    (r"10\sqrt{2}", r"10\sqrt{2} cm^2", "right"),
    (r"10\sqrt{2}", r"10\sqrt{2}cm", "right"),
    (r"10\sqrt{2}", r"10\sqrt{2} m", "right"),
    (r"2+\sqrt{3}", r"2+\sqrt{3}cm", "right"),
    ("x^2+3", "x^2+3am", "wrong"),
    (r"2\pi", r"2\pi\text{ sq. units}", "right"),
    (r"\sqrt{2}, \sqrt{3}", r"\sqrt{2}\text{ cm}, \sqrt{3}\text{ cm}", "right"),
]
"""Reference, answer and verdict."""
KNOWN_ERRORS = {
    (r"\boxed{10:30}", r"\boxed{\frac13}", "wrong"): "a time of day is read as a ratio",
}
"""Rows that are graded against their label."""


def labelled(name: str) -> list[tuple[str, str, str]]:
    rows = [(row["reference"], row["response"], row["label"]) for row in read_rows(name)]
    return [row for row in rows if row not in KNOWN_ERRORS]


@pytest.mark.parametrize("name", ["math", "kinds"])
def test_the_verdict_is_a_careful_readers(name):
    assert faults_of(labelled(name)) == []


def test_a_letter_is_a_unit_or_a_variable():
    rows = [(rf"\boxed{{{a}}}", rf"\boxed{{{b}}}", verdict) for a, b, verdict in LETTERS]
    assert faults_of(rows) == []


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
