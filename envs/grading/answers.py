r"""From a response to a number: the last ``\boxed{}``, and the exact quantity written in it.

Pure functions over strings; nothing is evaluated as code, no input raises.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from math import floor
from typing import Literal

from envs.grading.compounds import compound
from envs.grading.exact import TooLarge, rational
from envs.grading.latex import clean, matching_brace

Verdict = Literal["right", "wrong", "no_answer", "timeout"]

MAX_ANSWER = 1000
"""Longest answer, in characters, that is compared; the longest reference of MATH has 81."""
MAX_BRACES = 20_000
"""Braces that are followed inside one box before it counts as never closed."""
MAX_BOXES = 20
"""Boxes at most that are read as one list."""
MAX_MENTIONS = 1000
"""Boxes without an argument that are passed over in the search for the last one."""

_STATED: dict[str, Literal["right", "wrong", "unclear"]] = {
    **dict.fromkeys(("right", "correct", "yes", "true"), "right"),
    **dict.fromkeys(("wrong", "incorrect", "no", "false", "not right", "not correct"), "wrong"),
}
_BOX = re.compile(r"\\(?:boxed|fbox)")
_BESIDE = re.compile(
    r"(?:[\s$,;.&]|\\[,;:! ()\[\]\\]|\\q?quad|\\text\s*\{\s*,?\s*(?:and|or)\s*\}|\b(?:and|or)\b"
    r"|[A-Za-z]\s*=)*"
)
"""What may stand between the boxes of one list."""
_BOX_ARGUMENT = re.compile(r"\s*(?:(?P<brace>\{)|(?P<bare>-?\d(?:[\d.,]*\d)?|(?<=\s)[A-Za-z]\b))")


def last_box(text: str) -> str | None:
    r"""Return the content of the last ``\boxed{...}`` or ``\fbox{...}`` of ``text``, stripped.

    None when there is none, when the last one never closes (a response cut off at its token limit)
    or when it is empty. A mention without an argument, as in "I used \boxed.", is not a box.
    """
    _, _, content = next(_boxes(text), (0, 0, None))
    return content


def list_of_boxes(text: str, *, adjacent: bool = True) -> str | None:
    r"""Return ``-2, 1`` of ``\boxed{-2} and \boxed{1}``; None where fewer than two values stand so.

    ``adjacent``: only those with nothing but "and", "or" and commas between them and the last one.
    """
    found: list[str] = []
    following = None
    for start, end, content in islice(_boxes(text), MAX_BOXES):
        if content is None:
            break
        if following is not None and end > following:  # it holds the box that was found in it
            continue
        if adjacent and following is not None and not _BESIDE.fullmatch(text, end, following):
            break
        found.insert(0, content)
        following = start
    values = list(dict.fromkeys(found))
    return ", ".join(values) if len(values) > 1 else None


def _boxes(text: str) -> Iterator[tuple[int, int, str | None]]:
    """Start, end and content of the boxes from the last one on; None where it says nothing."""
    at = len(text)
    for _ in range(MAX_MENTIONS):
        at = text.rfind("box", 0, at)
        if at < 0:
            return
        box = _BOX.match(text, text.rfind("\\", max(at - 2, 0), at))
        argument = _BOX_ARGUMENT.match(text, box.end()) if box and box.end() > at else None
        if box is None or argument is None:
            continue
        if argument["bare"]:
            yield box.start(), argument.end(), argument["bare"]
            continue
        start = argument.end("brace")
        close = matching_brace(text, start - 1, MAX_BRACES)
        yield box.start(), close + 1, text[start:close].strip() or None if close >= 0 else None


@dataclass(frozen=True)
class Quantity:
    """One number as it was written."""

    value: Fraction
    percent: bool = False
    """Whether a percent sign followed; ``value`` is the number before the sign."""
    fraction: bool = False
    """Whether it is one fraction and so, as a share, never meant as a percentage."""
    decimals: int = field(default=0, compare=False)
    """Digits behind the point of a plain decimal."""
    unrounded: Fraction | None = field(default=None, compare=False)
    """Of a reference: what the equation before it comes to, where that can be read."""


# Words after a number are its unit, unless they change its value or are mathematics themselves.
UNIT = re.compile(
    r"[A-Za-z]{3,}|[gmhsLl]|cm|mm|km|dm|kg|mg|ml|mL|dL|ft|in|lb|oz|hr|[ap]m|[AP]M|mi|yd|th|st|nd|rd|kW|kB"
    r"|MB|GB|TB|Hz|US|pt|qt|of|to|at|on|is|as|by|ha"
)
_NOT_A_UNIT = re.compile(
    r"\b(?:pi|sin|cos|tan|log|ln|sqrt|exp|mod|theta|inf|infty|infinity|factorial|squared|cubed|or"
    r"|plus|minus|half|halves|thirds?|quarters?|(?:fif|six|seven|eigh|nin|ten|twelf)ths|hundredths|least|most|zero|one|two"
    r"|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|hundred"
    r"|thousand|million|billion|tens|hundreds|thousands|millions|billions)\b"
    # "5 times a week" is a count, "5 times the price" a factor
    r"|\btimes\s+(?:(?:the|that|those|what|his|her|their|its|my|your|our|an? number|[b-z])\b"
    r"|\w+'s)",
    re.IGNORECASE,
)
_NOT_A_LEAD = re.compile(
    r"\b(?:not|than|least|most|under|over|between|except|near|nearly|below|above|or|and|minus|pi"
    r"|sin|cos|tan|log|ln|sqrt|mod|half of|third of|quarter of|root of|square of|cube of|up to)\b"
    r"|\b(?:times|twice|(?:double|triple)(?: the)?)\s*$",
    re.IGNORECASE,
)
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_DECIMAL = re.compile(r"-?\d*\.(\d+)")
_ONE_FRACTION = re.compile(r"-?\\frac")
_REMARK = re.compile(r"(?<=\s)\((?=[A-Za-z])[A-Za-z .,'/-]{2,}\)\s*$")
_UNIT_POWER = re.compile(r"(?<=[A-Za-z])\s*\^\s*\{?[23]\}?(?=\s*(?:/|$))")
_PERCENT_WORD = re.compile(r"(?<=[\d}\s)])(?:per ?cent|pct)\b|\bpercent\b")
_FIRST = re.compile(r"[\d({\\]|\.\d|(?<![A-Za-z])[-+]")
_LAST = re.compile(r"[\d)}!%][^\d)}!%]*$")
_BEFORE = re.compile(r"[A-Za-z][A-Za-z.,:;'\"() -]*(?<=[ :.])", re.ASCII)
_AFTER = re.compile(r"[ .,:;]*|[ .,:;/-]*[A-Za-z][A-Za-z.,:;'\"/ -]*", re.ASCII)
_LABEL = re.compile(r"^\s*(?:[A-Z]\s*:|\\?#|\(?[A-E]\)(?=\s*[-\d]))")
_NEGATIVE = re.compile(r"\b(?:negative|minus)\s+(?=[\d.])", re.IGNORECASE)
_CURRENCY = re.compile(r"^\s*(?:USD|US|EUR|GBP|CAD|AUD|Rs\.?)\s*(?=[-\d])")


def stated_verdict(response: str) -> Literal["right", "wrong", "unclear"]:
    r"""Return what a model says of an answer in its last box; unclear where that is neither.

    >>> stated_verdict(r"Step 2 is off: \boxed{\text{Wrong}.}"), stated_verdict("It is right.")
    ('wrong', 'unclear')
    """
    said = re.sub(r"\\text(?:bf|it)?\{([^{}]*)\}", r"\1", last_box(response) or "")
    return _STATED.get(" ".join(re.findall("[a-z]+", said.lower())), "unclear")


def quantity(text: str) -> Quantity | None:
    """Return the one number in ``text`` (cleaned), with the words and units around it dropped.

    None without a number, with several, or with a hedge ("at least 5"); raises TooLarge.
    """
    text = _TEXT.sub(r" \1 ", text).replace(r"^{\circ}", " degrees ")
    text = _PERCENT_WORD.sub("%", _UNIT_POWER.sub("", _REMARK.sub("", text)))
    text = _NEGATIVE.sub("-", _CURRENCY.sub("", _LABEL.sub("", text))).strip().rstrip(".,;:?\"'")
    first, last = _FIRST.search(text), _LAST.search(text)
    if first is None or last is None or last.start() < first.start():
        return None
    before, after = text[: first.start()], text[last.start() + 1 :]
    if not (_is_lead(before) and _is_unit(after)):
        return None
    core = text[first.start() : last.start() + 1].rstrip()
    percent = core.endswith("%")
    value = rational(core.rstrip("% "))
    fraction = _ONE_FRACTION.match(core) is not None
    decimal = _DECIMAL.fullmatch(core.rstrip("% "))
    decimals = len(decimal[1]) if decimal else 0
    return None if value is None else Quantity(value, percent, fraction, decimals)


def _is_lead(before: str) -> bool:
    if not before.strip():
        return True
    return bool(
        _BEFORE.fullmatch(before)
        and re.search("[A-Za-z]{2}", before)
        and not _NOT_A_LEAD.search(before)
    )


def _is_unit(after: str) -> bool:
    """Whether ``after`` is empty or a unit such as "clips", "km/h" or "miles per hour"."""
    if not _AFTER.fullmatch(after) or _NOT_A_UNIT.search(after):
        return False
    words = re.findall(r"[A-Za-z]+", re.sub(r"\b([ap])\.m\b", r"\1m", after.replace("'", "")))
    if not words or "/" in after or (len(words) > 1 and (len(words[0]) > 1 or words[0] == "a")):
        return True
    return len(words) == 1 and UNIT.fullmatch(words[0]) is not None


def same_quantity(candidate: Quantity, reference: Quantity) -> bool:
    """Whether two quantities are equal; a percent sign may be missing, a factor 100 may not.

    "50%" answers 1/2 and 50, and both answer "50%"; "2000%" does not answer 20, nor "1/2%" 1/2.
    """
    plain = candidate.value == reference.value
    if candidate.percent == reference.percent:
        return plain
    percent, other = sorted((candidate, reference), key=lambda side: not side.percent)
    share = percent.value == other.value * 100 and abs(other.value) <= 1
    # a percentage such as 87.5 is told from a share such as 1/2 by its size
    points = abs(other.value) >= 1 and not other.fraction
    return share or (plain and (reference.percent or points))


def rounds_to(candidate: Quantity, reference: Quantity) -> bool:
    """Whether an exact answer, 10/3, becomes the reference, 3.333, at its number of decimals.

    Exact is what the reference's own equation comes to, or has more decimals of that. Where there
    is none to be read, it is any number but a plain decimal, or one that goes on as a fraction
    does: 0.6667 answers 0.67, 2.54 is no answer to 2.5.
    """
    value, exact = candidate.value, reference.unrounded
    if candidate.decimals > reference.decimals and exact is not None:
        exact = value if value == _rounded(exact, candidate.decimals) else exact
    elif exact is None:
        simple = value.limit_denominator(12)
        endless = candidate.decimals > 2 and 10**6 % simple.denominator
        if not candidate.decimals or (endless and value == _rounded(simple, candidate.decimals)):
            exact = value
    return (
        reference.decimals > 0
        and candidate.percent == reference.percent
        and value == exact
        and _rounded(value, reference.decimals) == reference.value
    )


def _rounded(value: Fraction, decimals: int) -> Fraction:
    size = Fraction(floor(abs(value) * 10**decimals + Fraction(1, 2)), 10**decimals)
    return -size if value < 0 else size


_SUFFIX = re.compile(r"(?<=\d)([kKM])$")
_ZEROS = {"k": 3, "K": 3, "M": 6}
_GSM8K_JOINS = re.compile(r"(?<=\d)(?:,\s+|\s+,\s*|\\?_)(?=\d{3}(?!\d))")
_ONE_MEMBER = re.compile(r"(?:\[|\\\{)([^\[\]{},;]*)(?:\]|\\\})")
_TIMES = re.compile(r"(?<=\d)\s+[xX]\s+(?=\d)")
_FULL_HOUR = re.compile(r"(?<![\d:])(1?\d|2[0-4]):00(?![\d:])")
_DIGIT = re.compile(r"(?<!\^\{)[0-9]")
MODULUS = re.compile(r"\s*\\pmod\{(\w+)\}\s*$")
_CHAIN = re.compile(
    # not the = under a sum
    r"(?<!_\{[a-z])(?<!_\{[a-z] )="
    r"|\\(?:approx|equiv)(?![a-zA-Z])|\\implies|\\(?:R|r)ightarrow|\\to(?![a-zA-Z])"
)
_PARTS = re.compile(r",|;|\bor\b|\band\b")


def last_of_chain(text: str) -> str:
    """Return 72 of "48 + 24 = 72"; a list of equations, "x = 5, y = 72", is returned as it is."""
    pieces = _CHAIN.split(text)
    if len(pieces) == 1 or sum("=" in part for part in _PARTS.split(text)) > 1:
        return text
    return pieces[-1]


def read_number(answer: str) -> Quantity | None:
    """Return the number that a boxed answer states, after its last "="; None for none."""
    if len(answer) > MAX_ANSWER:
        return None
    answer = _TIMES.sub(r"\\times ", answer)
    text = answer if re.search(r"[(\[]", answer) else _GSM8K_JOINS.sub("", answer)
    text = _FULL_HOUR.sub(r"\1", last_of_chain(MODULUS.sub("", clean(text))).strip())
    alone = _ONE_MEMBER.fullmatch(text)
    text = _SUFFIX.sub(lambda m: rf" \cdot 10^{{{_ZEROS[m[1]]}}}", alone[1] if alone else text)
    return quantity(text)


def gsm8k_reference(answer: str) -> Quantity:
    """Return the number that a reference states after its last ``####``, or as a whole."""
    before, mark, final = answer.rpartition("####")
    final = final.strip()
    if mark:
        final = final.partition("\n")[0].strip()
    try:
        number = read_number(final)
    except TooLarge:
        number = None
    if number is None:
        place = "as the answer" if final and not mark else "after '####'"
        raise ValueError(f"no number {place}, but {final[:80]!r}")
    return replace(number, unrounded=_left_side(before)) if number.decimals else number


def _left_side(working: str) -> Fraction | None:
    """Return 10/3 of ``10/3=3.333``; None where the last equation cannot be read."""
    try:
        left = read_number(re.split("[;\n]", working.strip())[-1].partition("=")[0])
    except TooLarge:
        return None
    return left.value if left else None


def compare_number(answer: str, reference: Quantity) -> Verdict:
    """Judge a boxed answer whose reference is one number; without a digit it is no answer."""
    if not _DIGIT.search(clean(answer[:MAX_ANSWER])):
        return "no_answer"
    try:
        number = read_number(answer)
    except TooLarge:
        return "timeout"
    if number is None:
        parts = compound(clean(answer)) if len(answer) <= MAX_ANSWER else None
        return "right" if parts and reference.value in parts.values() else "wrong"
    return "right" if same_quantity(number, reference) or rounds_to(number, reference) else "wrong"
