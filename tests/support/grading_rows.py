"""Answers of MATH graded by the real processes, many at once."""

import asyncio
from collections.abc import Sequence

from envs import MATH
from envs.grading import checker
from envs.grading.expressions import Question


def verdicts_of(pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return the verdict on each (reference, response); the processes are ended afterwards."""

    async def judge(reference: str, response: str) -> str:
        _, outcome = MATH._examine(response, reference)
        return await checker.check_async(outcome) if isinstance(outcome, Question) else outcome

    async def judge_all() -> list[str]:
        return await asyncio.gather(*(judge(*pair) for pair in pairs))

    try:
        return dict(zip(pairs, asyncio.run(judge_all()), strict=True))
    finally:
        checker.shutdown()
