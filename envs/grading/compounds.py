"""Quantities in two units, one a multiple of the other: 2 hours 30 minutes, 5 feet 3 inches."""

import re
from fractions import Fraction

_UNITS = {
    **dict.fromkeys(("h", "hr"), "hour"),
    **dict.fromkeys(("feet", "ft"), "foot"),
    **dict.fromkeys(("inche", "in"), "inch"),
    **{"min": "minute", "sec": "second", "lb": "pound", "oz": "ounce"},
}
_SMALLER = {
    **{("day", "hour"): 24, ("hour", "minute"): 60, ("minute", "second"): 60, ("week", "day"): 7},
    **{("year", "month"): 12, ("foot", "inch"): 12, ("yard", "foot"): 3, ("pound", "ounce"): 16},
    **{("dollar", "cent"): 100, ("meter", "centimeter"): 100, ("m", "cm"): 100, ("kg", "g"): 1000},
}
"""Units of which one has so many of the other."""
_COMPOUND = re.compile(r"(\d+) ?([a-z]+),?(?: and)? (\d+(?:\.\d+)?) ?([a-z]+)")


def compound(text: str) -> dict[str, Fraction] | None:
    """Return what a quantity in two units comes to in either; ``text`` is cleaned.

    >>> compound("2 hours 30 minutes")
    {'hour': Fraction(5, 2), 'minute': Fraction(150, 1)}
    """
    found = _COMPOUND.fullmatch(_plain(text))
    large, small = (_unit(found[i]) for i in (2, 4)) if found else ("", "")
    times = _SMALLER.get((large, small))
    if found is None or times is None:
        return None
    value = Fraction(found[1]) * times + Fraction(found[3])
    return {large: value / times, small: value}


def meets(value: Fraction, text: str, wanted: dict[str, Fraction]) -> bool:
    """Whether a number, in the unit that ``text`` has behind it or in none, is the compound."""
    words = [_unit(word) for word in re.findall("[a-z]+", _plain(text))]
    units = [word for word in words if any(word in pair for pair in _SMALLER)] or wanted
    return value in [wanted.get(unit) for unit in units]


def _plain(text: str) -> str:
    return " ".join(re.sub(r"\\text|[{}]", " ", text).replace(" ,", ",").lower().split()).strip(".")


def _unit(word: str) -> str:
    word = word[:-1] if len(word) > 1 and word.endswith("s") else word
    return _UNITS.get(word, word)
