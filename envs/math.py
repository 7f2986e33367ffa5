r"""MATH: competition problems whose answer is a LaTeX expression.

Rows ``{"problem", "solution", ...}``; the answer is the last ``\boxed{}`` of the solution. Rewards:
right 1, otherwise 0. What strings and exact numbers cannot decide goes to math-verify.
"""

from typing import ClassVar

from envs.base import Env
from envs.grading.answers import Verdict, last_box
from envs.grading.expressions import Question, compare


class MATH(Env):
    """Competition problems; equal expressions, sets, intervals and matrices are equal answers."""

    name = "math"
    rewards: ClassVar[dict[Verdict, int]] = {"right": 1, "wrong": 0, "no_answer": 0, "timeout": 0}
    question_key = "problem"
    answer_key = "solution"
    example_line = (
        '{"problem": "Compute $2 + 3$.", "solution": "The sum is $2 + 3 = \\\\boxed{5}$."}'
    )
    needs_checker = True
    fetched = True

    @classmethod
    def target(cls, reference: str) -> str:
        answer = last_box(reference)
        if answer is None:
            raise ValueError("no answer in \\boxed{}")
        return answer

    @classmethod
    def answer_as_target(cls, answer: str) -> str:
        return answer

    @classmethod
    def compare(cls, answer: str, target: str) -> Verdict | Question:
        return compare(answer, target)
