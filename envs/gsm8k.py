r"""GSM8K: word problems with one number as the answer, compared exactly.

Rows ``{"question", "answer"}``; the answer's last line is ``#### 72``. Rewards: right 1, wrong 0,
no number in a ``\boxed{}`` -1.
"""

from typing import ClassVar

from envs.answers import Quantity, Verdict, compare_number, gsm8k_reference, read_number
from envs.base import Env
from envs.exact import TooLarge


class GSM8K(Env):
    """Word problems; thousands, currency, percent and units around the number do not matter."""

    name = "gsm8k"
    rewards: ClassVar[dict[Verdict, int]] = {"right": 1, "wrong": 0, "no_answer": -1, "timeout": 0}
    question_key = "question"
    answer_key = "answer"
    example_line = '{"question": "What is 2 + 3?", "answer": "2 + 3 = 5\\n#### 5"}'

    @classmethod
    def target(cls, reference: str) -> Quantity:
        return gsm8k_reference(reference)

    @classmethod
    def answer_as_target(cls, answer: str) -> Quantity | None:
        try:
            return read_number(answer)
        except TooLarge:
            return None

    @classmethod
    def compare(cls, answer: str, target: Quantity) -> Verdict:
        return compare_number(answer, target)
