r"""Unit or variable? ``5 cm`` is 5 with its unit, ``5abc`` and ``5 - h`` are expressions.

A word problem has no variables, so ``answers.quantity`` drops any word after a number. In MATH
letters next to a number are variables unless they are set in ``\text{}``, are words set off by a
space, or can hardly be anything but a unit (``5cm``). Texts are cleaned; nothing raises but
``TooLarge``.
"""

import re

from envs.grading.answers import UNIT, Quantity, quantity

_TEXT = re.compile(r"\\text\{[^{}]*\}|\^\{\\circ\}\s*(?:[CF](?![A-Za-z]))?")
_TAIL = re.compile(r"[\d)}!%](?P<gap>[\s.,:;/-]*)(?P<word>(?![eE][-+]?\d)[A-Za-z]+)")
# 2lb, 2mg and 2hr are products as likely as units; 5am and 4th are not
_UNAMBIGUOUS = (
    r"(?:[ckmd]m|kg|m[lL]|dL|ft|in|oz|lbs|yds?|hrs|sq|[kK]?mph|rpm|kW|[kMGT]B|k?Hz|[ap]m|[ap]\.m|th"
    r"|(?:m|mi)/(?:s|h|sec|min|hr)|(?<=1)st|(?<=2)nd|(?<=3)rd|units?|degrees?|inch(?:es)?|foot|feet"
    r"|yards?|miles?|(?:centi|milli|kilo|deci)?met(?:er|re)s?|(?:milli|kilo)?grams?"
    r"|(?:milli)?lit(?:er|re)s?|pounds?|ounces?|seconds?|mins?|minutes?|hours?|days?|weeks?|months?"
    r"|percent|pct|years?|dollars?|cents?|points?|square|cubic)(?![A-Za-z])"
)
_GLUED = re.compile(_UNAMBIGUOUS)
PRODUCT = (
    r"(?:abc[a-z]*|(?:sin|cos|tan|log|ln)x"
    r"|(?!(?:k?mp?h|kph|kwh|rpm|fps|lbs|hrs|yrs|yds|pts|qts|cts|tsp|tbsp|sqft)(?![a-z]))"
    r"[b-df-hj-np-tv-z]{3,})(?![A-Za-z])"
)
"""Three letters or more that are no word: mgh, xyz."""
_VARIABLES = re.compile(PRODUCT)
_STRAY = re.compile(r"(?<![A-Za-z'])[b-fi-knoqrt-z](?![A-Za-z])")
"""A letter alone that stands for no unit; a and p are left out for a.m. and p.m."""
_SUM = re.compile(r"[\d)}!%]\s*[-+]")
_TERM_BEFORE = re.compile(r"[^\d({\\]*[A-Za-z](?<!\bis)(?<!\bof)(?<!\bto)\s*[-+]\s*[\d.({\\]")


def number(text: str) -> Quantity | None:
    """Return ``quantity(text)``, but None where letters beside the number are variables."""
    return None if _has_variables(_TEXT.sub(" ", text)) else quantity(text)


def _has_variables(text: str) -> bool:
    """Whether ``text``, a number and words in a line, is rather an expression in variables."""
    if _TERM_BEFORE.match(text):  # "xy - 2"
        return True
    tail = _TAIL.search(text)
    if tail is None:
        return False
    gap, word, rest = tail["gap"], tail["word"], text[tail.end() :]
    if _STRAY.search(rest):
        return True
    if not gap:
        return not _GLUED.match(text, tail.start("word"))
    if word == "a":  # "10 a week", but "10 a b"
        return re.match(r"\.?\s*m\b|\s+[A-Za-z]{3}", rest) is None
    if not UNIT.fullmatch(word) or _VARIABLES.match(word):
        return True
    # "5 m", but "6 - 5 m", "5/m" and "5, m"
    return len(word) == 1 and (not gap.isspace() or bool(_SUM.search(text, 0, tail.end("gap"))))


_POWER = r"(?:\^\{?[23]\}?)?"
_TEXT_UNIT = re.compile(
    r"(?<=[^\s(\[{,=])\s*\\text\{\s*(?!and\b|or\b|if\b|for\b)[A-Za-z(][A-Za-z .'/()-]*\}"
    rf"{_POWER}$"
)
_WORD_UNIT = re.compile(
    rf"(?<=[\w}})])\s+(?!pi|sin|cos|tan|log|mod|and|exp|sqrt|{PRODUCT})"
    rf"(?:[a-z]{{3,}}|cm|mm|km|ft|in|kg)(?: [a-z]{{2,}})*{_POWER}$"
)
_COMMAND = r"\\(?:frac|sqrt|pi|cdot|times)(?![A-Za-z])"
# after a constant only: in x^2 + 3am they are variables
_LETTER_UNIT = re.compile(rf"(-?(?:[\d.{{}}()/\s]|{_COMMAND})*(?<=[\d}})]))\s+[gmhsLl]{_POWER}")
_GLUED_UNIT = re.compile(rf"((?:[-+\d.{{}}()/\s]|{_COMMAND})*(?<=[\d}})])){_UNAMBIGUOUS}{_POWER}")


def without_unit(text: str) -> str:
    r"""Return ``10\sqrt{2}`` of ``10\sqrt{2}\text{ cm}^2``; a unit alone is returned as it is."""
    text = _WORD_UNIT.sub("", _TEXT_UNIT.sub("", text)).strip() or text
    short = _LETTER_UNIT.fullmatch(text) or _GLUED_UNIT.fullmatch(text)
    return short[1] if short else text
