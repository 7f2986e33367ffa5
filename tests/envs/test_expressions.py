r"""MATH answers: equal expressions are right, near misses are wrong.

    python -m pytest tests/envs/test_expressions.py

``tests/data/grading/math.jsonl`` holds hand-written responses with the verdict that a careful
reader gives them. All are graded at once by the real processes, and each row is then one test.
"""

import asyncio
import json
from pathlib import Path

import pytest

from envs import MATH, checker
from envs.expressions import Question, compare

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data/grading/math.jsonl").read_text().splitlines()
]
KNOWN_ERRORS = {
    (r"\boxed{t^2}", r"\boxed{t\cdot t}"): "math-verify does not read a product that begins so",
    (r"\boxed{10:30}", r"\boxed{\frac13}"): "a time of day is read as a ratio",
}
"""Rows that are graded against their label, by reference and response."""


def as_test(row: dict[str, str]):
    """Return a row as arguments; a row with a known error must fail."""
    key = row["reference"], row["response"]
    known = KNOWN_ERRORS.get(key)
    marks = [pytest.mark.xfail(reason=known, strict=True)] if known else []
    return pytest.param(*key, row["label"], marks=marks, id=f"{key[1]} for {key[0]}")


@pytest.fixture(scope="module")
def verdicts():
    """Return the verdict on each row."""

    async def judge(row: dict[str, str]) -> str:
        _, outcome = MATH._examine(row["response"], row["reference"])
        return await checker.check_async(outcome) if isinstance(outcome, Question) else outcome

    async def judge_all() -> list[str]:
        return await asyncio.gather(*map(judge, ROWS))

    found = asyncio.run(judge_all())
    yield {(row["reference"], row["response"]): v for row, v in zip(ROWS, found, strict=True)}
    checker.shutdown()


@pytest.mark.parametrize(("reference", "response", "label"), [as_test(row) for row in ROWS])
def test_the_verdict_is_a_careful_readers(verdicts, reference, response, label):
    assert verdicts[reference, response] == label


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
