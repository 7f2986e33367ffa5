r"""Problems whose answer is one number, compared exactly: SVAMP, ASDiv and any file of that kind.

Rows ``{"question", "answer"}``. Rewards: right 1, wrong 0, no number in a ``\boxed{}`` -1.
"""

from typing import Any, ClassVar

from envs.base import Env
from envs.grading.answers import Quantity, Verdict, compare_number, gsm8k_reference, read_number
from envs.grading.exact import TooLarge


class NumberEnv(Env):
    """Thousands separators, currency, percent signs and units around a number do not matter."""

    rewards: ClassVar[dict[Verdict, int]] = {"right": 1, "wrong": 0, "no_answer": -1, "timeout": 0}
    question_key = "question"
    answer_key = "answer"

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


class Numeric(NumberEnv):
    """Any questions with one number as the answer, such as AIME (``"073"`` is 73).

    The answer is a JSON number, a text such as ``"$1,250.50"`` or ``"12%"``, or a solution that
    ends in ``#### 72``. In ``problems`` it is always a text.
    """

    name = "numeric"
    example_line = '{"question": "What is 2 + 3?", "answer": 5}'

    @classmethod
    def prepare(cls, row: dict[str, Any]) -> dict[str, Any]:
        answer = row["answer"]
        if isinstance(answer, bool) or not isinstance(answer, int | float | str):
            raise ValueError(f"'answer' must be a number or a text with one, not {answer!r:.80}")
        return row | {"answer": str(answer)}


class SVAMP(NumberEnv):
    """SVAMP as ``data/fetch.py`` writes it: the equation, then ``#### 51``."""

    name = "svamp"
    example_line = (
        '{"question": "Ann had 3 pens and lost 1. How many are left?", '
        '"answer": "( 3.0 - 1.0 ) = 2\\n#### 2"}'
    )
    fetched = True


class ASDiv(NumberEnv):
    """ASDiv as ``data/fetch.py`` writes it: the problems whose answer is one number."""

    name = "asdiv"
    example_line = (
        '{"question": "Ann had 3 pens and lost 1. How many are left?", "answer": "3-1=2\\n#### 2"}'
    )
    fetched = True
