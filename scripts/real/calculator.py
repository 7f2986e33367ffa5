r"""Word problems that are answered with an expression or an equation, and a calculator.

    python workflow_eval.py --env scripts/real/calculator.py:Calculator --data_path FILE ...
    python workflow_eval.py --env scripts/real/calculator.py:Equation --data_path FILE ...

What is said after an attempt begins with what its expression comes to. That is no oracle: it is
known without the reference. Of an expression, `\boxed{57 - 83}`, it says only that "57 - 83 is -26"
cannot count apples; of an equation, `\boxed{57 + 26 = 73}`, whether there is a slip in it.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from envs import NumberEnv
from envs.base import Verdict
from envs.grading.answers import Quantity, last_box
from envs.plugins import load_file
from envs.prompts import PromptStyle

splits = load_file(Path(__file__).parents[2] / "data" / "splits.py")

_AGAIN = "That is incorrect. Try again.\n{question}"
LARGEST = 10**12
"""Of a larger number, the value is not told."""


class Calculator(NumberEnv):
    """Problems with one number as the answer, such as SVAMP, ASDiv and GSM8K."""

    name = "calculator"
    example_line = '{"question": "Ann had 3 pens and lost 1. How many are left?", "answer": "2"}'
    prompts = PromptStyle(
        system="Put the expression that answers the question in \\boxed{}.",
        example_question=None,
        example_answer=None,
        question="{question}",
        wrong="{attempt} is {value}. " + _AGAIN,
        no_answer=_AGAIN,
        right="That is correct.",
    )

    def feedback(self, index: int, verdict: Verdict, attempt: str = "") -> str:
        answer = last_box(attempt) or ""
        value = value_of(self.computed(answer))
        if value is None or verdict == "right":
            return self.text("right" if verdict == "right" else "no_answer", index)
        shown = decimal(value) + self.slip(answer, value)
        return self.text("wrong", index, attempt=self.computed(answer)[:100], value=shown)

    @staticmethod
    def computed(answer: str) -> str:
        """What of an answer the calculator is given."""
        return answer

    def slip(self, answer: str, value: Fraction) -> str:
        """What is said of a result that is not the value."""
        return ""


class Equation(Calculator):
    r"""The same with an equation as the answer, `\boxed{57 + 26 = 83}`, whose result counts."""

    name = "equation"
    prompts = replace(
        Calculator.prompts, system="Put the equation that answers the question in \\boxed{}."
    )

    @classmethod
    def answer_as_target(cls, answer: str) -> Quantity | None:
        return super().answer_as_target(result(answer))

    @classmethod
    def compare(cls, answer: str, target: Quantity) -> Verdict:
        return super().compare(result(answer), target)

    @staticmethod
    def computed(answer: str) -> str:
        return answer.rpartition("=")[0].strip()

    def slip(self, answer: str, value: Fraction) -> str:
        own = self.answer_as_target(answer)
        return "" if own and own.value == value else f", not {result(answer) or 'that'}"


def expert(problem: dict[str, str], messages: Iterable[dict[str, str]] = ()) -> str:
    r"""The reference as an equation, `\boxed{48 + 48 / 2 = 72}`. For --models.

    A right attempt is given again, one with a slip in its arithmetic without it.
    """
    attempts = [message["content"] for message in messages if message["role"] == "assistant"]
    answer = last_box(attempts[-1]) or "" if attempts else ""
    goal = Equation.target(problem["answer"])
    if Equation.compare(answer, goal) == "right":
        return attempts[-1]
    left = Equation.computed(answer)
    if value_of(left) != goal.value:
        left = splits.expression(problem["question"], problem["answer"])
    return rf"\boxed{{{left} = {decimal(goal.value)}}}"


def result(answer: str) -> str:
    """The number behind the last =; nothing where that is an expression.

    >>> result("57 + 26 = 83"), result("83"), result("57 + 26"), result("57 = 26 + 31")
    ('83', '83', '', '')
    """
    last = answer.rpartition("=")[2].strip()
    return last if re.fullmatch(r"-?[\d,]*\.?\d+", last) else ""


def value_of(expression: str) -> Fraction | None:
    number = NumberEnv.answer_as_target(expression)
    return None if number is None or abs(number.value) > LARGEST else number.value


def decimal(value: Fraction) -> str:
    """A number to two digits behind the point.

    >>> decimal(Fraction(-26)), decimal(Fraction(10, 4)), decimal(Fraction(-1, 3))
    ('-26', '2.5', '-0.33')
    """
    whole, hundredths = divmod(round(abs(value) * 100), 100)
    return "-" * (value < 0) + f"{whole}.{hundredths:02d}".rstrip("0").rstrip(".")
