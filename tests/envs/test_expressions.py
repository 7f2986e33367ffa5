r"""MATH answers: equal expressions are right, near misses are wrong.

    python -m pytest tests/envs/test_expressions.py

``cases/math.jsonl`` holds hand-written boxes with the verdict that a careful reader gives them.
All are graded at once by the real processes, and each row is then one test.
"""

import asyncio
import json
from pathlib import Path

import pytest

from envs import checker
from envs.expressions import Question, compare

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parent / "cases" / "math.jsonl").read_text().splitlines()
]
CASES = [
    (row["reference"], box, verdict)
    for row in ROWS
    for verdict in ("right", "wrong")
    for box in row[verdict]
]


@pytest.fixture(scope="module")
def verdicts():
    """Return the verdict on each case."""

    async def judge(reference: str, box: str) -> str:
        outcome = compare(box, reference)
        return await checker.check_async(outcome) if isinstance(outcome, Question) else outcome

    async def judge_all() -> list[str]:
        return await asyncio.gather(*(judge(reference, box) for reference, box, _ in CASES))

    yield dict(zip(((r, b) for r, b, _ in CASES), asyncio.run(judge_all()), strict=True))
    checker.shutdown()


@pytest.mark.parametrize(("reference", "box", "verdict"), CASES)
def test_the_verdict_is_a_careful_readers(verdicts, reference, box, verdict):
    assert verdicts[reference, box] == verdict


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
