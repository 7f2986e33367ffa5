"""Hand-written answers with their verdicts, and MATH graded by the real processes, many at once."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from envs import MATH
from envs.grading import checker
from envs.grading.questions import Question


def read_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of ``grading/NAME.jsonl``, labelled as a careful reader has them."""
    lines = (Path(__file__).parent / f"grading/{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def faults_of(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return the rows of MATH, (reference, response, label), whose verdict is not the label."""
    verdicts = verdicts_of([row[:2] for row in rows])
    return [
        f"{verdicts[reference, response]}, not {label}: {response} for {reference}"
        for reference, response, label in rows
        if verdicts[reference, response] != label
    ]


def verdicts_of(pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return the verdict on each (reference, response); the processes go on running."""

    async def judge(reference: str, response: str) -> str:
        _, outcome = MATH._examine(response, reference)
        return await checker.check_async(outcome) if isinstance(outcome, Question) else outcome

    async def judge_all() -> list[str]:
        return await asyncio.gather(*(judge(*pair) for pair in pairs))

    return dict(zip(pairs, asyncio.run(judge_all()), strict=True))
