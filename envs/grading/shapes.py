r"""The structure of an answer: lists, tuples, intervals and matrices, as lists of LaTeX strings.

Works on text that ``latex.clean`` has brought into one spelling.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from envs.grading.exact import TooLarge, rational

NAME = r"(?:[A-Za-z]|\\(?!in\b|text\b|frac\b|sqrt\b|infty\b)[a-zA-Z]+)(?:_\{?\w+\}?)?'?"
"""A variable: ``x``, ``\\theta``, ``x_1``."""
_FUNCTION = rf"{NAME}(?:\([a-z]\))?"

_JOINTS = re.compile(
    r"\\text\s*\{\s*,?\s*(?:and|or)\s*\}|\b(?:and|or)\b|;|\\(?:land|lor|wedge|vee)(?![a-zA-Z])"
)
_MARK = re.compile(r"\\[{}]|\\[lr]angle(?![a-zA-Z])|[()\[\]{},]")
_OPEN = {"(": "(", "[": "[", r"\{": "{", "{": "{", r"\langle": "("}
_CLOSE = {")": ")", "]": "]", r"\}": "}", "}": "}", r"\rangle": ")"}
_NAMED = re.compile(rf"^\s*(?:{NAME}(?:\([A-Za-z, ]+\))?|\([A-Za-z, ]+\))\s*=(?!=)")


@dataclass(frozen=True)
class Group:
    """The members of a list, and the brackets around them."""

    kind: str
    """``()``, ``[]``, ``[)``, ``(]``, ``{}``, or empty for a bare list."""
    items: tuple[str, ...]


def members(text: str) -> list[str]:
    r"""Split at commas, "and" and "or" outside brackets; ``\pm`` gives two members."""
    text, items, depth, start = _JOINTS.sub(",", text), [], 0, 0
    for mark in _MARK.finditer(text):
        depth += (mark[0] in _OPEN) - (mark[0] in _CLOSE)
        if mark[0] == "," and depth == 0:
            items.append(text[start : mark.start()])
            start = mark.end()
    items.append(text[start:])
    values = (_NAMED.sub("", item).strip() for item in items)
    return [value for item in values if item for value in _both_signs(item)]


def _both_signs(item: str) -> list[str]:
    if r"\pm" not in item:
        item = item.replace(r"\mp", r"\pm")
    if item.count(r"\pm") != 1:
        return [item]
    before, after = (part.strip() for part in item.split(r"\pm"))
    return [f"{before} + {after}" if before else after, f"{before} - {after}"]


def read_group(text: str) -> Group:
    """Return the members of ``text`` with its outer brackets; one member in () has no kind."""
    text = _MEMBER_OF.sub("", text).strip()
    marks = list(_MARK.finditer(text))
    if len(marks) < 2 or marks[0].start() or marks[-1].end() < len(text) or not _wraps(marks):
        return Group("", tuple(members(text)))
    kind = _OPEN[marks[0][0]] + _CLOSE[marks[-1][0]]
    items = tuple(members(text[marks[0].end() : marks[-1].start()]))
    return Group("" if kind == "()" and len(items) == 1 else kind, items)


def _wraps(marks: list[re.Match]) -> bool:
    """Whether the first mark opens a bracket that the last one, and no earlier one, closes."""
    if marks[0][0] not in _OPEN or marks[-1][0] not in _CLOSE or marks[0][0] == "{":
        return False
    depth = 0
    for mark in marks[:-1]:
        depth += (mark[0] in _OPEN) - (mark[0] in _CLOSE)
        if depth == 0:
            return False
    return depth == 1


_RELATION = re.compile(r"(\\[lg]e(?![a-zA-Z])|[<>])")
_MEMBER_OF = re.compile(rf"^\s*{NAME}\s*\\in(?![a-zA-Z])\s*")
_REAL = rf"{NAME}\s*\\in\s*\\mathbb\s*\{{?R\}}?\s*"
_IS_REAL = re.compile(rf"^\s*{_REAL},|,\s*{_REAL}$")
_SET_BUILDER = re.compile(rf"\s*\\\{{\s*(?:{NAME}\s*|{_REAL})(?:\||\\mid|:)([^|:]+)\\\}}\s*")
_UNEQUAL = re.compile(rf"\s*{NAME}\s*\\ne(?![a-zA-Z])\s*(.+)")
_PUNCTURED = re.compile(
    r"\s*(?:\\mathbb\s*\{?R\}?|\(-\\infty,\s*\\infty\))\s*(?:\\setminus|\\backslash|-)\s*\\\{([^,]+)\\\}\s*"
)
_OR = re.compile(r"\bor\b|\\(?:vee|lor)(?![a-zA-Z])")
_CUP = re.compile(r"\\cup(?![a-zA-Z])")


def intervals(text: str) -> list[Group] | None:
    r"""Return the intervals whose union ``text`` is: ``x \ge 2``, ``[2,\infty)``, ``x \ne 0``.

    None when it is not a union of intervals in a notation that is read here.
    """
    built = _SET_BUILDER.fullmatch(text)
    text = _IS_REAL.sub("", built[1] if built else text)
    text = _MEMBER_OF.sub("", text).replace(r"+\infty", r"\infty")
    hole = _UNEQUAL.fullmatch(text) or _PUNCTURED.fullmatch(text)
    if hole:
        point = hole[1].strip()
        return [Group("()", (r"-\infty", point)), Group("()", (point, r"\infty"))]
    found = []
    for part in _CUP.split(text):
        if _RELATION.search(part):
            read = [_related(piece) for piece in members(part)]
            found += read if _OR.search(part) else _both(read)
        else:
            found.append(_plain(part))
    return None if None in found else found


def _both(found: list[Group | None]) -> list[Group | None]:
    """Return the interval between two bounds, as in ``x > 1`` and ``x < 5``, where there is one."""
    if len(found) == 2 and None not in found:
        upper, lower = sorted(found, key=lambda group: group.items[1] == r"\infty")
        if upper.items[0] == r"-\infty" and lower.items[1] == r"\infty":
            low, high = _number(lower.items[0]), _number(upper.items[1])
            if low is not None and high is not None and low < high:
                kind = lower.kind[0] + upper.kind[1]
                return [Group(kind, (lower.items[0], upper.items[1]))]
    return found


def _number(text: str) -> Fraction | None:
    try:
        return rational(text)
    except TooLarge:
        return None


def _plain(text: str) -> Group | None:
    if text.strip().startswith("]"):  # the French ]a, b[ is (a, b)
        text = "(" + text.strip()[1:]
    if text.strip().endswith("["):
        text = text.strip()[:-1] + ")"
    group = read_group(text)
    return group if group.kind not in ("", "{}") and len(group.items) == 2 else None


def _related(text: str) -> Group | None:
    r"""Read ``a < x \le b`` and ``x > a`` as intervals."""
    pieces = [piece.strip() for piece in _RELATION.split(text)]
    if any(operator in (">", r"\ge") for operator in pieces[1::2]):
        pieces = [_mirrored(piece) for piece in reversed(pieces)]
    if any(operator in (">", r"\ge") for operator in pieces[1::2]):
        return None
    if len(pieces) == 3 and re.fullmatch(_FUNCTION, pieces[0]):
        pieces = [r"-\infty", "<", *pieces]
    elif len(pieces) == 3 and re.fullmatch(_FUNCTION, pieces[2]):
        pieces = [*pieces, "<", r"\infty"]
    if len(pieces) != 5 or not re.fullmatch(_FUNCTION, pieces[2]):
        return None
    kind = ("(" if pieces[1] == "<" else "[") + (")" if pieces[3] == "<" else "]")
    return Group(kind, (pieces[0], pieces[4]))


def _mirrored(piece: str) -> str:
    return {">": "<", "<": ">", r"\ge": r"\le", r"\le": r"\ge"}.get(piece, piece)


_MATRIX = re.compile(
    r"\\begin\{(?P<name>(?:[pbB]|small)?matrix|array)\}(?:\s*\{[clr| ]*\})?(?P<body>.*)"
    r"\\end\{(?P=name)\}[)\]\s]*",
    re.DOTALL,
)
_ROW_END = re.compile(r"\\\\(?:\s*\[[^\]]*\])?")


def matrix(text: str) -> list[list[str]] | None:
    r"""Return the rows of one matrix, a factor before it multiplied in; None for anything else."""
    start = text.find(r"\begin{")
    match = _MATRIX.fullmatch(text, start) if start >= 0 else None
    if match is None or r"\begin" in match["body"]:
        return None
    factor = re.sub(r"(?:\\cdot)?[\s(\[]*$", "", text[:start]).strip()
    form = {"": "{}", "-": "-({})"}.get(factor, rf"({factor}) \cdot ({{}})")
    rows = (row.split("&") for row in _ROW_END.split(match["body"]) if row.strip())
    return [[form.replace("{}", cell.strip()) for cell in row] for row in rows]
