r"""Word problems that are answered with an expression, `\boxed{57 + 26}`, and a calculator.

    python workflow_eval.py --env scripts/real/calculator.py:Calculator --data_path FILE ...

What is said after an attempt begins with what its expression comes to. That is no oracle: it is
known without the reference, and says by itself only that "57 - 83 is -26" cannot count apples.
"""

from fractions import Fraction

from envs import NumberEnv
from envs.base import Verdict
from envs.grading.answers import last_box
from envs.prompts import PromptStyle

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
        number = self.answer_as_target(answer)
        if number is None or abs(number.value) > LARGEST or verdict == "right":
            return self.text("right" if verdict == "right" else "no_answer", index)
        return self.text("wrong", index, attempt=answer[:100], value=decimal(number.value))


def decimal(value: Fraction) -> str:
    """A number to two digits behind the point.

    >>> decimal(Fraction(-26)), decimal(Fraction(10, 4)), decimal(Fraction(-1, 3))
    ('-26', '2.5', '-0.33')
    """
    whole, hundredths = divmod(round(abs(value) * 100), 100)
    return "-" * (value < 0) + f"{whole}.{hundredths:02d}".rstrip("0").rstrip(".")
