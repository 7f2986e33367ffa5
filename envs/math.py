r"""MATH: competition problems whose answer is a LaTeX expression.

Rows ``{"problem", "solution", ...}``; the answer is the last ``\boxed{}`` of the solution, or all
of them. Rewards: right 1, otherwise 0. What strings and exact numbers cannot decide goes to
math-verify.
"""

from typing import ClassVar

from envs.base import Env
from envs.grading.answers import Verdict, last_box, list_of_boxes
from envs.grading.expressions import compare
from envs.grading.questions import Question


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
    def target(cls, reference: str) -> tuple[str, ...]:
        """Return the last box and, where the solution has several, all of them as a list."""
        answer = last_box(reference)
        if answer is None:
            raise ValueError("no answer in \\boxed{}")
        values = list_of_boxes(reference, adjacent=False)
        return (answer,) if values is None else (answer, values)

    @classmethod
    def answer_as_target(cls, answer: str) -> tuple[str, ...]:
        return (answer,)

    @classmethod
    def compare(cls, answer: str, target: tuple[str, ...]) -> Verdict | Question:
        found = [compare(answer, reading) for reading in target]
        return "right" if "right" in found else next((o for o in found if o != "wrong"), "wrong")

    @classmethod
    def _examine(cls, response: str, reference: str) -> tuple[str | None, Verdict | Question]:
        answer, outcome = super()._examine(response, reference)
        values = list_of_boxes(response) if outcome != "right" else None
        if values is not None:
            again = super()._examine(f"\\boxed{{{values}}}", reference)[1]
            if again == "right" or (outcome == "wrong" and again != "wrong"):
                return values, again
        return answer, outcome
