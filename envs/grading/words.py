r"""Answers that are words or names: ``\text{odd}``, ``\text{(E)}``, ``\mathbb{R}``, ``3032_5``.

Works on text that ``latex.clean`` has brought into one spelling.
"""

import re

from envs.grading.answers import Verdict
from envs.grading.shapes import NAME
from envs.grading.units import PRODUCT

_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_WORDS_ONLY = re.compile(r"(?:\\text\{[^{}]*\}|[A-Za-z ,.:()'-]|\\[{}])+")
_A_WORD = re.compile(rf"(?<![A-Za-z])(?!{PRODUCT})(?![A-Z]+(?![a-z]))[A-Za-z]{{3,}}")
"""Three letters or more that are neither a product, xyz, nor the corners of a figure, ABC."""
_LETTERED = re.compile(r"\(?[A-Z]\)|[A-Z](?:\s*,\s*[A-Z])+")
_FILLER = (
    r"(?:the|it|this|that|graph|function|answer|final|is|are|an?|choice|option|on|of|curve"
    r"|solutions?)"
)
_FILLERS = re.compile(rf"^(?:{_FILLER} +)+|(?: +{_FILLER})+$")
_CHOICE = re.compile(r"(?:\\text\{)?\s*\(?([A-Za-z])\)(?!.*\([A-Za-z]\)|\s*[-+*/^=])")
_OPTION = re.compile(
    r"^(?:\\text\{)?\s*(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer)[\s:}]+(?:\\text\{)?\(?([A-E])\)?"
    r"(?![A-Za-z(]|\s*(?:,|or\b|and\b))"
    r"|([A-E])[.:](?=[\s}]))"
)
_LABELLED = re.compile(
    r"(?:\\text\{)?\s*\(([A-E])\)(?!.*\([A-Z]\)|[\s}]*(?:[-+*/^_=,;']|and\b|or\b|$))"
)
"""A reference that names a choice and says what it is: (C) 5."""
_BASE_NAMES = ",,two,three,four,five,six,seven,eight,nine,ten,eleven,twelve,,,,sixteen"
_BASES = {name: str(base) for base, name in enumerate(_BASE_NAMES.split(",")) if name}
_BASE = re.compile(r"(-?)0*([0-9][0-9A-Za-z]*|[A-F][0-9A-F]+(?=_1[1-6]$))_([0-9]{1,2})")
_SPELLED = {**_BASES, "zero": "0", "one": "1"}


def as_words(a: str, b: str) -> Verdict | None:
    r"""Judge ``\text{odd}``, ``\text{(E)}``, ``\text{A, C and F}``: case and order do not count.

    None where the reference ``b`` is no words: ``p - q`` and ``xyz`` are expressions.
    """
    # "(E) 12" names a choice and repeats what it says
    choice = _CHOICE.match(_OPTION.sub(r"(\1\2)", a))
    labelled = _LABELLED.match(b)
    wanted_choice = labelled[1] if labelled else b
    given = choice[1] if choice else re.sub(r"\\text|[{}]", "", a)
    if len(given) == 1 and given in "ABCDE" and wanted_choice in tuple("ABCDE"):
        return "right" if given == wanted_choice else "wrong"
    wanted = _words(b)
    if wanted is None or not (r"\text" in b or _A_WORD.search(b) or _LETTERED.fullmatch(b)):
        return None
    a = a.rpartition("=")[2]
    if _words(a) == wanted:
        return "right"
    return "right" if choice and [choice[1].lower()] == wanted else "wrong"


def _words(text: str) -> list[str] | None:
    if not _WORDS_ONLY.fullmatch(text):
        return None
    plain = re.sub(r"[().:{}\\]", "", _TEXT.sub(r" \1 ", text)).lower()
    items = (" ".join(item.split()) for item in re.split(r",|\band\b|\bor\b", plain))
    return sorted(_FILLERS.sub("", item) for item in items if item)


_SETS = {
    "reals": re.compile(
        rf"(?:{NAME}\s*\\in\s*)?(?:\\mathbb\s*\{{?R\}}?|\(\s*-\s*\\infty\s*,\s*\+?\s*\\infty\s*\)"
        r"|(?:the )?(?:set of )?(?:all )?real(?:s| numbers)"
        rf"|(?:{NAME} (?:is|can be) )?any real number)",
        re.IGNORECASE,
    ),
    "no value": re.compile(r"DNE|(?:it |the limit )?does not exist", re.IGNORECASE),
    "empty": re.compile(
        r"\\emptyset|(?:there (?:is|are) )?no (?:real )?(?:solutions?|roots?)", re.IGNORECASE
    ),
}


def as_named_sets(a: str, b: str) -> Verdict | None:
    r"""Judge ``\mathbb{R}``, ``(-\infty,\infty)``, "all real numbers"; None for other answers."""
    given, wanted = (_set_name(text) for text in (a, b))
    if given is None or wanted is None:
        return None
    return "right" if given == wanted else "wrong"


def _set_name(text: str) -> str | None:
    plain = " ".join(_TEXT.sub(r" \1 ", text).split())
    return next((name for name, spelling in _SETS.items() if spelling.fullmatch(plain)), None)


def in_digits(text: str) -> str:
    r"""Return ``2`` of ``\text{two}``; anything but one whole number up to twelve as it is."""
    return _SPELLED.get(_TEXT.sub(r"\1", text).strip().lower(), text)


def in_base(a: str, b: str) -> Verdict | None:
    """Judge ``3032_5``: digits and base must agree; an equal value in another base does not do."""
    given, wanted = (_BASE.fullmatch(_flat_base(text)) for text in (a, b))
    if wanted is not None:
        return "right" if given and given.groups() == wanted.groups() else "wrong"
    if given is None or not re.fullmatch(r"-?\d+", b):
        return None
    base = int(given[3])
    legal = 2 <= base <= 36 and all(int(digit, 36) < base for digit in given[2])
    return "right" if legal and int(given[1] + given[2], base) == int(b) else "wrong"


def _flat_base(text: str) -> str:
    flat = re.sub(r"\\text|\\overline|[{}()\s]", "", text.rpartition("=")[2])
    flat = re.sub("_*,?(?:in)?base", "_", flat)
    name = re.search(r"(?<=_)[a-z]+$", flat)
    return flat[: name.start()] + _BASES.get(name[0], name[0]) if name else flat


_Time = tuple[str, str, str | None, str | None]
"""Hour, minutes, "o'clock" and the half of the day."""
_HALVES = (
    ("inthemorning$", "am"),
    ("inthe(?:afternoon|evening)$", "pm"),
    ("^(?:12(?::00)?)?noon$", "12pm"),
    ("^(?:12(?::00)?)?midnight$", "12am"),
)
_TIME = re.compile(r"0?(\d{1,2})(?:[:.](\d\d))?(o'?clock)?([ap]m)?")


def as_times(a: str, b: str) -> Verdict | None:
    """Judge times of the day: a half of the day that the reference names may not be left off."""
    given, wanted = map(_time, (a, b))
    if given and wanted and (given[3] or wanted[3]):
        given, wanted = map(_of_half_a_day, (given, wanted))
    if not (given and wanted and any((*given[2:], *wanted[2:]))):  # 3:45 may be a ratio
        return None
    return "right" if given[:2] == wanted[:2] and wanted[3] in (None, given[3]) else "wrong"


def _time(text: str) -> _Time | None:
    plain = re.sub(r"\\text|[{}\s]|(?<=[apm])\.", "", text.lower())
    for words, half in _HALVES:
        plain = re.sub(words, half, plain)
    hour = re.match("[a-z]+(?=o'?clock)", plain)
    plain = f"{_SPELLED.get(hour[0], '')}{plain[hour.end() :]}" if hour else plain
    time = _TIME.fullmatch(plain)
    return (time[1], time[2] or "00", time[3], time[4]) if time else None


def _of_half_a_day(time: _Time) -> _Time:
    """2:15 pm of 14:15."""
    return (str(int(time[0]) - 12), *time[1:3], "pm") if 12 < int(time[0]) < 24 else time


_PARTS = re.compile(r"\d(?=')|circ|(?<=')\s*\d+(?!['\d])")
_MARKS = re.compile(r"\d\}*\s*('+)")


def as_marked(a: str, b: str) -> Verdict | None:
    """Judge numbers with marks: 5', feet, are no inches; None for other answers."""
    if any(re.search("[A-Za-z]", re.sub(r"\\(?:frac|circ)", "", text)) for text in (a, b)):
        return None
    given, wanted = (sorted(_MARKS.findall(text)) for text in (a, b))
    if "," not in a + b and any(len(_PARTS.findall(text)) > 1 for text in (a, b)):
        return "wrong"
    return "wrong" if given and wanted and given != wanted else None


BY_NAME = (as_named_sets, as_times, as_marked, as_words, in_base)
"""Each judges an answer to a reference of its kind, and returns None for another reference."""
