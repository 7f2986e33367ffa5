r"""What is left for math-verify, which runs in another process as it can take for ever.

It is asked where its reading is no kinder than a careful reader's, and in the spelling that it
understands. Pure functions; no input raises.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

from envs.grading.answers import Verdict
from envs.grading.units import without_unit


@dataclass(frozen=True)
class Question:
    """Expressions that math-verify has to compare."""

    candidate: tuple[str, ...]
    reference: tuple[str, ...]
    ordered: bool = True
    """Whether member i must equal member i; otherwise each needs a partner of its own."""


Outcome = Verdict | Question

_ANGLE = re.compile(r"(\d+(?:\.\d+)?)\s*\^\{\\circ\}")
_RADIANS = r"(\\frac{\1 \\pi}{180})"
_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_IMAGINARY = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])")
_PRIMED = re.compile(r"([A-Za-z])(?:_\{?(\w+)\}?)?('+)(?!s(?![a-z]))")
"""A letter with primes, which math-verify would drop; it does read indices."""
COMMANDS = re.compile(r"\\[A-Za-z]+")
_LOGARITHM = re.compile(
    r"(\\(?:log|ln)(?:\s*_\s*(?:\{\w+\}|\w))?)\s*(\d+|[a-z])\s*(?=\\(?:cdot|times)\b)"
)
"""A logarithm as a factor, which math-verify would take of the whole product."""
_CONJUGATE = re.compile(r"\\overline\s*\{([^{}A-Za-hj-z\\]*i[^{}A-Za-hj-z\\]*)\}")
_TRANSPOSED = re.compile(
    r"[A-Z)}]\s*\^\s*(?:T(?![A-Za-z])|\{\s*(?:T|\\text\{T\})\s*\}|\\top)|[)}\]]\s*'"
)
"""A matrix turned over or something in brackets with a prime, which math-verify would drop."""
_CORNERS = re.compile(r"[A-Z]{2,}")
_FACTOR = re.compile(r"[A-Z](?:\s*\^\s*(?:T(?![A-Za-z])|\{\s*(?:T|-1)\s*\}))?")
_INVERSE_OF_TWO = re.compile(r"\(\s*([A-Z])\s*([A-Z])\s*\)\s*\^\s*\{-1\}")
_DECIMAL_POWER = re.compile(r"\^\{(-?\d{0,9}\.\d{1,9})\}")
"""An exponent that math-verify would compute in floats."""


def question(given: Sequence[str], wanted: Sequence[str], *, ordered: bool = True) -> Outcome:
    """Return what math-verify has to decide, or "wrong" where its own reading would be too kind."""
    if len({len(_TRANSPOSED.findall(" ".join(texts))) for texts in (given, wanted)}) > 1:
        return "wrong"
    figures = [_figures(" ".join(texts)) for texts in (given, wanted)]
    if figures[0] != figures[1] and sorted(chain(*figures[0])) == sorted(chain(*figures[1])):
        return "wrong"
    products = [_products(texts) for texts in (given, wanted)]
    if products[0] != products[1] and len({str(sorted(chain(*some))) for some in products}) == 1:
        return "wrong"
    letters = [set(COMMANDS.sub(" ", " ".join(texts))) & _LETTERS for texts in (given, wanted)]
    folded = [{letter.lower() for letter in some} for some in letters]
    if letters[0] != letters[1] and folded[0] == folded[1]:
        return "wrong"
    given, wanted = (
        tuple(_ANGLE.sub(_RADIANS, text) if _has_pi(other) else text for text in texts)
        for texts, other in ((given, wanted), (wanted, given))
    )
    return Question(tuple(map(_spelled, given)), tuple(map(_spelled, wanted)), ordered)


def _has_pi(texts: Sequence[str]) -> bool:
    """Whether these are angles in radians."""
    return any(r"\pi" in text for text in texts) and not any("circ" in text for text in texts)


def _figures(text: str) -> set[str]:
    r"""The names of figures: AB is BA, \angle ABC is \angle CBA, but ABCD is not ACBD."""
    found = _CORNERS.findall(COMMANDS.sub(" ", text))
    return {
        "".join(sorted(name))
        if len(name) == 2 or r"\triangle" in text
        else (min(name, name[::-1]) if r"\angle" in text else name)
        for name in found
    }


def _products(texts: Sequence[str]) -> list[list[str]]:
    r"""Return ``[["A^{-1}", "B"]]`` of ``A^{-1}B``; nothing where no capital is inverted.

    Those are matrices, whose order counts, while math-verify holds ``BA^{-1}`` for the same.
    """
    plain = _INVERSE_OF_TWO.sub(r"\2^{-1}\1^{-1}", COMMANDS.sub(" ", "+".join(texts)))
    terms = sorted(filter(None, map(_FACTOR.findall, re.split(r"(?<![{^])[-+=,]", plain))))
    return terms if any("^" in factor for term in terms for factor in term) else []


_LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def _spelled(text: str) -> str:
    """Drop a unit, write degrees inside a sine as radians and set off i, as it needs them."""
    text = without_unit(text)
    if _TRIG.search(text):
        text = _ANGLE.sub(_RADIANS, text)
    text = _LOGARITHM.sub(r"\1(\2) ", text)
    text = _CONJUGATE.sub(lambda m: f"({m[1].replace('i', '(-i)')})", text)
    text = _DECIMAL_POWER.sub(lambda m: f"^{{{Fraction(m[1])}}}", text)
    text = _PRIMED.sub(lambda m: f"{m[1]}_{{{m[2] or ''}{'p' * len(m[3])}}}", text)
    return _IMAGINARY.sub(" i ", text.replace(r"^{\circ}", ""))
