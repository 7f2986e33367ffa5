r"""Are two LaTeX answers the same? What strings and exact numbers can decide is decided here.

``compare`` returns a verdict, or the question that is left for math-verify (``questions.py``).
Pure functions; no input raises.
"""

import re
from collections.abc import Sequence
from itertools import chain

from envs.grading.answers import (
    MAX_ANSWER,
    MODULUS,
    Quantity,
    last_of_chain,
    same_quantity,
)
from envs.grading.compounds import compound, meets
from envs.grading.exact import TooLarge
from envs.grading.latex import chosen, clean
from envs.grading.names import is_equation, solved
from envs.grading.questions import COMMANDS, Outcome, question
from envs.grading.shapes import (
    NAME,
    Group,
    intervals,
    matrix,
    members,
    piecewise,
    read_group,
)
from envs.grading.units import number, without_unit
from envs.grading.words import BY_NAME, in_digits

_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
"""Blanks, but not between two digits: "20 05" is not 2005."""
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_FIGURE = re.compile(r"\\(?:overline|angle|triangle)\s*(?:\{\s*([A-Z]{2,})\s*\}|([A-Z]{2,}))")
_DEGREES = re.compile(r"\^\{\\circ\}(?!\s*\d)")
_THREE_DIGITS = re.compile(r"(?<=\d),(?=[1-9]\d{2}(?!\d))")
"""A comma that may separate thousands or members: 128,256."""
_PERIOD = re.compile(r"(?<=\.\d)\((\d+)\)")
_INTEGER = re.compile(
    rf"(?:,|\(|\\text\{{[^{{}}]*\}})\s*({NAME})\s*\\in\s*\\mathbb\s*\{{?([NZQ])\}}?\s*\)?\s*$"
)
_RESIDUE = re.compile(r"(?:^|(?<=[=,]))\s*-?\d+(?=\s*(?:,|$))")
_LONE_BRACE = re.compile(r"([\^_])\{(\w)\}")
_LEAD = re.compile(r"^(?:\\text\{[^{}]*\}|(?:the )?(?:final )?answer)\s*(?:is|:)?\s*(?=\S)", re.I)
_INDEX = re.compile(r"_\{?\d\}?(?=\s*=)")


def compare(candidate: str, reference: str) -> Outcome:
    if candidate.strip() == reference.strip():
        return "right"
    if max(len(candidate), len(reference)) > MAX_ANSWER:
        return "wrong"
    try:
        outcome = _compare(clean(candidate), clean(reference))
        if outcome == "wrong" and _THREE_DIGITS.search(candidate + " " + reference):
            lists = (_THREE_DIGITS.sub(", ", text) for text in (candidate, reference))
            outcome = _compare(*map(clean, lists))
        if outcome == "wrong" and _PERIOD.search(candidate):  # 0.1(6), or a product
            outcome = _compare(clean(_PERIOD.sub(r"\\overline{\1}", candidate)), clean(reference))
    except TooLarge:
        return "timeout"
    return outcome


def _compare(a: str, b: str) -> Outcome:
    given, wanted = map(MODULUS.search, (a, b))
    if given and not wanted:
        a = MODULUS.sub("", a).replace(r"\equiv", "=")
    elif wanted and (given or not re.search(r"=|\\equiv", b)):
        if given and given[1] != wanted[1]:
            return "wrong"
        a, b = (_residues(text, wanted[1] if given else "") for text in (a, b))
    bound = [found for found in map(_INTEGER.search, (a, b)) if found]
    if len({found[2] for found in bound}) == 1:  # 4k+1, k \in \mathbb{Z}
        a, b = (_INTEGER.sub("", text) for text in (a, b))
        if len(bound) > 1 and not _named(bound[1][1]).search(a):  # 4n+1, n \in \mathbb{Z}
            a = _named(bound[0][1]).sub(lambda _: bound[1][1], a)
    if _unordered(a) == _unordered(b):
        return "right"
    for decide in (
        *BY_NAME,
        _as_equations,
        _as_ratios,
        _as_compounds,
        _as_quantities,
        _as_pieces,
        _as_shapes,
    ):
        outcome = decide(a, b)
        if outcome is not None:
            return outcome
    a, b = _value(a), _value(b) if "=" not in b else b
    return "right" if squeeze(a) == squeeze(b) else question([a], [b])


def _named(letter: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z\\]){re.escape(letter)}(?![A-Za-z])")


def _residues(text: str, modulus: str) -> str:
    r"""Return x = 3 of x \equiv 10 \pmod{7}; without a modulus the number as it stands."""
    text = MODULUS.sub("", text).replace(r"\equiv", "=")
    if not (modulus.isdecimal() and int(modulus)):
        return text
    return _RESIDUE.sub(lambda residue: str(int(residue[0]) % int(modulus)), text)


def squeeze(text: str) -> str:
    r"""Return ``text`` without blanks, degrees, ``\text``, ``\angle``, braces of an exponent."""
    text = _FIGURE.sub(r"\1\2", _DEGREES.sub("", _TEXT.sub(r"\1", text)))
    return _SPACE.sub("", _LONE_BRACE.sub(r"\1\2", text))


def _unordered(text: str) -> tuple[str, list[str]]:
    r"""Return ``text`` squeezed, the members of ``B \cup A`` in order."""
    operator = next((mark for mark in (r"\cup", r"\cap") if mark in text), "")
    return operator, sorted(map(squeeze, text.split(operator) if operator else [text]))


# --- equations, names and units --------------------------------------------------------------


def _as_equations(a: str, b: str) -> Outcome | None:
    if "=" not in b:
        return _approximated(a, b) if r"\approx" in a else None
    wanted, given = solved(b), solved(a)
    roots = wanted.roots() if wanted else None
    if "=" not in a:
        if is_equation(b) and _is_zero(number(a)):
            return "wrong"
        sides = b.split("=")
        if not wanted and len(sides) == 2 and all(map(_has_letter, sides)) and _has_letter(a):
            return question([a, a], sides)  # (x+1)^2 = x^2+2x+1
        outcome = _compare(a, wanted.values(wanted.order())) if wanted else "wrong"
        return _compare(a, roots) if outcome == "wrong" and roots else outcome
    indexed = [_INDEX.search(text) is not None for text in (a, b)]
    if wanted and given and indexed[0] != indexed[1]:  # x_1 and x_2 are x
        wanted, given = (solved(_INDEX.sub("", text)) for text in (b, a))
    if wanted and given:
        if set(wanted.names) == set(given.names):
            outcome = _compare(given.values(wanted.names), wanted.values(wanted.names))
            return _compare(given.roots() or a, roots) if outcome == "wrong" and roots else outcome
        if number(given.values(given.names)) and number(wanted.values(wanted.names)):
            return "wrong"
    if r"\pm" in a + b and len(members(a)) == len(members(b)) > 1:
        return _partnered(*(_singles(members(text)) for text in (a, b)))
    return question([a], [b])


def _has_letter(text: str) -> bool:
    return re.search("[a-z]", COMMANDS.sub(" ", text)) is not None


def _approximated(a: str, b: str) -> Outcome:
    outcomes = [_compare(part, b) for part in a.split(r"\approx") if part.strip()]
    return "right" if "right" in outcomes else outcomes[0] if outcomes else "wrong"


_EITHER = re.compile(
    r"(?:[<>]|\\[lg]e(?![a-zA-Z])).*\bor\b.*=|=.*\bor\b.*(?:[<>]|\\[lg]e(?![a-zA-Z]))"
)
"""x < 1 or x = 3"""


def _value(text: str) -> str:
    r"""Return ``5`` of ``x = 5\text{ cm}``: no name, no words before it, no unit after it."""
    if "=" in text and not _EITHER.search(text):
        named = solved(text)
        first, last = text.split("=")[0], last_of_chain(text)
        last = first if number(first) and not number(last) else last
        if named and len(named.names) > 1 == len(named.solutions):
            values = named.solutions[0]
            text = ", ".join(f"{name}={values[name]}" for name in named.order())
        else:
            text = named.values(named.names) if named else last
    text = (text if _LABELS.search(text) else _LEAD.sub("", text.strip())).strip()
    return without_unit(text)


# --- numbers and shapes ----------------------------------------------------------------------

_NOT_ONE_NUMBER = re.compile(
    r"[<>]|\\(?:le|ge|ne|pm|cup|in)(?![a-zA-Z])|\b(?:or|not|than|least|most)\b|:.*:|\\[lc]?dots"
    # x^2/16 - y^2/9 = 1 is the equation of a curve, not a name for the number 1
    r"|^(?=[^=]*(?:/|\\frac))(?=[^=]*x[^=]*\^)(?=[^=]*y[^=]*\^)[^=]*="
)


_CHOSEN = re.compile(
    r"(?:(?<![A-Za-z\\])n?([CP])r?|\\text\{([CP])\})\s*=?\s*\((\d+),\s*(\d+)\)"
    r"|(?<!\w)(\d+) ?([CP]) ?(\d+)(?!\w)"
)
"""C(5,2) or P(5,2), which a number meets; elsewhere it is a point."""
_BRACKETED = re.compile(r"^\(([^()]*)\)$")


def _as_ratios(a: str, b: str) -> Outcome | None:
    """Judge ``1:2:3``: a common factor does not count."""
    given, wanted = (_BRACKETED.sub(r"\1", _value(text)).split(":") for text in (a, b))
    if len(wanted) < 3 or not all(part.strip() for part in wanted + given):
        return None
    if len(given) != len(wanted) or {part.strip() for part in given} == {"0"}:
        return "wrong"
    crossed = [
        [f"({x[i - 1]}) \\cdot ({y[i]})" for i in range(len(x))]
        for x, y in ((given, wanted), (wanted, given))
    ]
    return _ordered(*crossed)


def _as_compounds(a: str, b: str) -> Outcome | None:
    """Judge 2 hours 30 minutes for 2.5 or 150, and the other way round."""
    given, wanted = map(compound, (a, b))
    if given and wanted:
        return "right" if given == wanted else "wrong"
    parts, text = given or wanted, b if given else a
    other = number(text) if parts else None
    if parts is None or other is None or other.percent:
        return None
    return "right" if meets(other.value, text, parts) else None


def _as_quantities(a: str, b: str) -> Outcome | None:
    """Judge numbers exactly; a list or a range never answers a reference that is one number."""
    wanted = number(b)
    if wanted is None:
        return None
    spellings = [number(item) for item in members(a)]  # "3/4 or 0.75" is one number
    if len(spellings) > 1 and all(given and same_quantity(given, wanted) for given in spellings):
        return "right"
    a = _CHOSEN.sub(lambda m: chosen(m[3] or m[5], m[1] or m[2] or m[6], m[4] or m[7]), a)
    if _NOT_ONE_NUMBER.search(a) or (_is_zero(wanted) and is_equation(a)):
        return "wrong"
    given = number(in_digits(a) if "=" not in a else _value(a))
    if given is not None:
        return "right" if same_quantity(given, wanted) else "wrong"
    if len(members(_value(a))) != 1:
        return "wrong"
    return None


def _is_zero(quantity: Quantity | None) -> bool:
    return quantity is not None and quantity.value == 0


def _as_pieces(a: str, b: str) -> Outcome | None:
    given, wanted = (
        (piecewise(_value(a)), piecewise(_value(b))) if "{cases}" in a + b else (None, None)
    )
    if given is None or wanted is None:
        return None
    same = given.keys() == wanted.keys()
    return _ordered([given[where] for where in wanted], [*wanted.values()]) if same else "wrong"


def _as_shapes(a: str, b: str) -> Outcome | None:
    a = _value(a)
    rows, wanted_rows = matrix(a), matrix(b)
    if rows and wanted_rows:
        if list(map(len, rows)) != list(map(len, wanted_rows)):
            return "wrong"
        return _ordered([*chain(*rows)], [*chain(*wanted_rows)])
    parts, wanted_parts = intervals(a), intervals(b)
    if parts and wanted_parts:
        return _partnered(parts, wanted_parts)
    given, wanted = (_alone(read_group(text)) for text in (a, _value(b)))
    if len(given.items) == len(wanted.items) == 1:
        return None
    return _as_groups(given, wanted)


def _alone(group: Group) -> Group:
    r"""Return the point of ``\{(1,2)\}``; any other group as it is."""
    return read_group(group.items[0]) if group.kind == "{}" and len(group.items) == 1 else group


def _as_groups(given: Group, wanted: Group) -> Outcome:
    """Judge tuples in order, lists and sets in any order; a bare ``4,5`` may answer ``(4,5)``."""
    if wanted.kind in ("", "{}") and given.kind in ("", "{}"):
        return _partnered(_singles(given.items), _singles(wanted.items))
    if given.kind not in (wanted.kind, "") or len(given.items) != len(wanted.items):
        return "wrong"
    if given.kind == "" and wanted.kind != "()":
        return "wrong"
    return _ordered(given.items, wanted.items)


def _singles(items: Sequence[str]) -> list[Group]:
    return [Group("", (item,)) for item in {squeeze(item): item for item in items}.values()]


_LABELS = re.compile(r",\s*\\text\{\s*(?!and|or)[a-z]")
_LEADING = re.compile(r"^\s*\\text\{([^{}]*)\}\s*(?=\S)")
"""A label of a member, as in "maximum 5, minimum -1"."""


def _same(a: str, b: str) -> bool | None:
    """None when strings and numbers cannot tell."""
    if squeeze(a) == squeeze(b):
        return True
    given, wanted = number(a), number(b)
    if given and wanted:
        labels = [
            re.findall("[a-z]+", found[0].lower())
            for found in map(_LEADING.findall, (a, b))
            if found
        ]
        return same_quantity(given, wanted) and (len(labels) < 2 or labels[0] == labels[1])
    points = read_group(a), read_group(b)
    if points[0].kind == points[1].kind == "()" and len(points[0].items) == len(points[1].items):
        verdicts = set(map(_same, points[0].items, points[1].items))
        return False if False in verdicts else None if None in verdicts else True
    infinite = [r"\infty" in text for text in (a, b)]
    return False if any(infinite) and (given or wanted or all(infinite)) else None


def _ordered(given: Sequence[str], wanted: Sequence[str]) -> Outcome:
    verdicts = [_same(a, b) for a, b in zip(given, wanted, strict=True)]
    if False in verdicts:
        return "wrong"
    open_pairs = [i for i, verdict in enumerate(verdicts) if verdict is None]
    if not open_pairs:
        return "right"
    return question([given[i] for i in open_pairs], [wanted[i] for i in open_pairs])


def _partnered(given: list[Group], wanted: list[Group]) -> Outcome:
    if len(given) != len(wanted):
        return "wrong"
    left = list(wanted)
    lonely = []
    for group in given:
        partner = next((other for other in left if _equal_groups(group, other)), None)
        if partner is None:
            lonely.append(group)
        else:
            left.remove(partner)
    if not lonely:
        return "right"
    if sorted(group.kind for group in lonely) != sorted(group.kind for group in left):
        return "wrong"
    if all(len(group.items) == 1 for group in lonely):
        return question([g.items[0] for g in lonely], [g.items[0] for g in left], ordered=False)
    return _ordered(
        [item for group in lonely for item in group.items],
        [item for group in left for item in group.items],
    )


def _equal_groups(a: Group, b: Group) -> bool:
    pairs = zip(a.items, b.items, strict=False)
    return a.kind == b.kind and len(a.items) == len(b.items) and all(_same(*pair) for pair in pairs)
