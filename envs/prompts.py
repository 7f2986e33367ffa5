r"""Everything that a model is told: instruction, worked example, question and feedback texts.

A style is one ``PromptStyle``. ``default`` differs per environment, ``bare`` shows the question
alone (for models that know nothing else), ``FILE.json`` holds a user's own texts:

    {"system": "...", "example_question": null, "example_answer": null,
     "question": "{question}", "wrong": "No. {question}", "no_answer": "No. {question}",
     "right": "Yes."}

The texts with a default (``right_again`` and what follows it) may be left out.
"""

import json
import re
from dataclasses import MISSING, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class PromptStyle:
    """The texts of one style; ``{question}`` stands for the question in each of them."""

    system: str | None
    """The instruction, sent as the system message; None sends none."""
    example_question: str | None
    """The question of the worked example; None shows no example."""
    example_answer: str | None
    """The model's part of the worked example."""
    question: str
    """The first user message."""
    wrong: str
    """The user message after an attempt that is wrong; evaluation sends it after every attempt."""
    no_answer: str
    """The user message after an attempt in which no answer was found."""
    right: str
    """The closing user message after an attempt that is right."""
    right_again: str = (
        "Your answer is correct. Give it once more, with its steps, and put the final answer in "
        "\\boxed{}.\n\n{question}"
    )
    """The user message after an attempt that is called right, where the episode goes on."""
    judge: str = (
        "Check the answer above. It may be wrong: work through the steps again and compare them "
        "with what was asked. Close with your verdict, \\boxed{right} or \\boxed{wrong}."
    )
    """``--feedback self``: asks a model whether its attempt is right."""
    critique: str = (
        "Review the answer above: say which steps are right, which are wrong, and what has to "
        "change. Do not solve the question again. Close with your verdict, \\boxed{right} or "
        "\\boxed{wrong}."
    )
    """``--feedback critique``: asks a model what is wrong with its attempt."""
    refine: str = (
        "A review of your answer:\n\n{critique}\n\nUse it to solve the question again from the "
        "start, and put the final answer in \\boxed{}.\n\n{question}"
    )
    """``--feedback critique``: the user message with what the model has said."""
    hint: str = (
        "For you alone, a reference answer:\n\n{reference}\n\nSolve the question in steps of "
        "your own that end in this result, and do not mention that you were shown it."
    )
    """``--expert_sees reference``: added to what the expert is asked, never recorded as said."""

    def opening(self, question: str) -> list[dict[str, str]]:
        """The messages before the first attempt: instruction, example, question."""
        messages = []
        if self.system is not None:
            messages.append({"role": "system", "content": self.system})
        if self.example_question is not None and self.example_answer is not None:
            asked = self.question.replace("{question}", self.example_question)
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": self.example_answer})
        asked = self.question.replace("{question}", question)
        return [*messages, {"role": "user", "content": asked}]

    def fill(self, name: str, **values: str) -> str:
        """Return a text with ``{question}`` and the like replaced; values are taken as they are."""
        place = re.compile("|".join(rf"\{{{key}\}}" for key in values))
        return place.sub(lambda found: values[found[0][1:-1]], getattr(self, name))


_GSM8K = PromptStyle(
    system=(
        "You solve word problems from school mathematics. Reason step by step: say what you "
        "compute and why, one calculation at a time. Close with the result as a single number in "
        "\\boxed{}, for example \\boxed{12}, and write nothing after it."
    ),
    example_question=(
        "A baker fills 4 trays with 6 rolls each. She sells 14 rolls in the morning and half of "
        "the others in the afternoon. How many rolls are left?"
    ),
    example_answer=(
        "The baker fills 4 trays with 6 rolls each, so she has 4 * 6 = 24 rolls.\n"
        "After the morning, 24 - 14 = 10 rolls are left.\n"
        "In the afternoon she sells half of them, 10 / 2 = 5 rolls.\n"
        "So 10 - 5 = 5 rolls are left: \\boxed{5}"
    ),
    question="Question: {question}\n\nReason step by step and put the final number in \\boxed{}.",
    wrong=(
        "Your answer is not correct. Find the step that went wrong, then solve the question again "
        "from the start and put the final number in \\boxed{}.\n\nQuestion: {question}"
    ),
    no_answer=(
        "There was no number in \\boxed{} at the end of your reply. Solve the question step by "
        "step and put the final number in \\boxed{}.\n\nQuestion: {question}"
    ),
    right="Your answer is correct.",
)

_MATH = PromptStyle(
    system=(
        "You solve problems from mathematics competitions. Reason step by step, justify each "
        "step briefly and check the result. Close with the answer in its simplest exact form in "
        "\\boxed{}, for example \\boxed{\\frac{3}{4}}, and write nothing after it."
    ),
    example_question="What is the sum of the solutions of $x^2 - 7x + 10 = 0$ that exceed 3?",
    example_answer=(
        "We look for two numbers with product 10 and sum 7: they are 2 and 5, so "
        "$x^2 - 7x + 10 = (x - 2)(x - 5)$.\n"
        "The solutions are 2 and 5, and only 5 exceeds 3.\n"
        "The sum is \\boxed{5}"
    ),
    question="Problem: {question}\n\nReason step by step and put the final answer in \\boxed{}.",
    wrong=(
        "Your answer is not correct. Find the step that went wrong, then solve the problem again "
        "from the start and put the final answer in \\boxed{}.\n\nProblem: {question}"
    ),
    no_answer=(
        "There was no answer in \\boxed{} at the end of your reply. Solve the problem step by "
        "step and put the final answer in \\boxed{}.\n\nProblem: {question}"
    ),
    right="Your answer is correct.",
)

_GENERIC = PromptStyle(
    system=(
        "You solve problems. Reason step by step, one calculation at a time, and check the result. "
        "Close with the final answer alone in \\boxed{}, for example \\boxed{12}, and write "
        "nothing after it."
    ),
    example_question="How many whole numbers from 1 to 40 are divisible by 3 but not by 6?",
    example_answer=(
        "The multiples of 3 up to 40 are 3, 6, ..., 39: there are 13 of them.\n"
        "The multiples of 6 up to 40 are 6, 12, ..., 36: there are 6 of them.\n"
        "So 13 - 6 = 7 numbers are left: \\boxed{7}"
    ),
    question="{question}\n\nReason step by step and put the final answer in \\boxed{}.",
    wrong=(
        "Your answer is not correct. Find the step that went wrong, then solve the problem again "
        "from the start and put the final answer in \\boxed{}.\n\n{question}"
    ),
    no_answer=(
        "There was no answer in \\boxed{} at the end of your reply. Solve the problem step by "
        "step and put the final answer in \\boxed{}.\n\n{question}"
    ),
    right="Your answer is correct.",
)

_RETRY = "The answer is incorrect. Please try again. {question}"

BARE = PromptStyle(
    system=None,
    example_question=None,
    example_answer=None,
    question="{question}",
    wrong=_RETRY,
    no_answer=_RETRY,
    right="The answer is correct.",
)

_DEFAULTS = {"gsm8k": _GSM8K, "svamp": _GSM8K, "asdiv": _GSM8K, "math": _MATH}
_OPTIONAL = ("system", "example_question", "example_answer")
_PLACES = {"question": "question", "refine": "critique", "hint": "reference"}
"""Text -> what it must have a place for."""


def load_style(env_name: str, style: str, own: PromptStyle | None = None) -> PromptStyle:
    """Return the texts of ``default``, ``bare`` or a FILE.json; ``own`` are the default's."""
    if style == "default":
        return own or _DEFAULTS.get(env_name, _GENERIC)
    if style == "bare":
        return BARE
    if not style.endswith(".json"):
        raise ValueError(f"unknown prompt style {style!r}: use default, bare or a FILE.json")
    try:
        texts = json.loads(Path(style).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the prompt style {style}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"the prompt style {style} is not JSON: {error}") from error
    return _from_dict(texts, style)


def _from_dict(texts: object, source: str) -> PromptStyle:
    names = [field.name for field in fields(PromptStyle)]
    if not isinstance(texts, dict):
        raise ValueError(f"the prompt style {source} must be an object with the keys {names}")
    faults = [f"unknown key {key!r}" for key in texts if key not in names]
    required = [field.name for field in fields(PromptStyle) if field.default is MISSING]
    faults += [f"missing key {name!r}" for name in required if name not in texts]
    for name in names:
        text = texts.get(name, "")
        if not isinstance(text, str) and not (text is None and name in _OPTIONAL):
            faults.append(f"{name!r} must be a text" + (" or null" if name in _OPTIONAL else ""))
    for name, place in _PLACES.items():
        if isinstance(texts.get(name), str) and f"{{{place}}}" not in texts[name]:
            faults.append(f"{name!r} must contain {{{place}}}")
    if (texts.get("example_question") is None) != (texts.get("example_answer") is None):
        faults.append("'example_question' and 'example_answer' go together")
    if faults:
        raise ValueError(f"the prompt style {source}: {'; '.join(faults)}")
    return PromptStyle(**texts)
