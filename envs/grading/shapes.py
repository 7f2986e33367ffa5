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
    values = _in_full([_NAMED.sub("", item).strip() for item in split(text)])
    return [value for item in values if item for value in _both_signs(item)]


def _in_full(items: list[str]) -> list[str]:
    r"""Return 1, 2, 3, 4 of ``1, 2, \ldots, 4``."""
    at = next((i for i, item in enumerate(items) if _DOTS.fullmatch(item)), 0)
    known = [int(item) for item in items[:at] + items[at + 1 :] if _WHOLE.fullmatch(item)]
    if len(items) < 4 or not 2 <= at == len(items) - 2 or len(known) < len(items) - 1:
        return items
    step, last = known[1] - known[0], known[-1]
    full = [*range(known[0], last + 1, step)] if step > 0 and last - known[0] < 999 else []
    return [*map(str, full)] if [*full[:at], *full[-1:]] == known else items


_DOTS = re.compile(r"\.{3}|\\[lc]?dots")
_WHOLE = re.compile(r"-?\d{1,9}")


def split(text: str) -> list[str]:
    text, items, depth, start = _JOINTS.sub(",", text), [], 0, 0
    for mark in _MARK.finditer(text):
        depth += (mark[0] in _OPEN) - (mark[0] in _CLOSE)
        if mark[0] == "," and depth == 0:
            items.append(text[start : mark.start()])
            start = mark.end()
    return [*items, text[start:]]


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


# --- intervals and matrices ------------------------------------------------------------------

_MIRRORED = {">": "<", "<": ">", r"\ge": r"\le", r"\le": r"\ge"}
_RELATION = re.compile(r"(\\[lg]e(?![a-zA-Z])|[<>])")
_MEMBER_OF = re.compile(rf"^\s*(?:{NAME}|\(\s*{NAME}(?:\s*,\s*{NAME})+\s*\))\s*\\in(?![a-zA-Z])\s*")
_REAL = rf"{NAME}\s*\\in\s*\\mathbb\s*\{{?R\}}?\s*"
_IS_REAL = re.compile(rf"^\s*{_REAL},|,\s*{_REAL}$")
_SET_BUILDER = re.compile(
    rf"\s*(?:\\\{{)?\s*(?:{NAME}\s*|{_REAL})(?:\||\\mid|:)([^|:]+?)(?:\\\}})?\s*"
)
_UNEQUAL = re.compile(rf"\s*{NAME}\s*\\ne(?![a-zA-Z])\s*(.+)")
_PUNCTURED = re.compile(
    r"\s*(?:\\mathbb\s*\{?R\}?|\(-\\infty,\s*\\infty\))\s*(?:\\setminus|\\backslash|-)\s*\\\{(.+)\\\}\s*"
)
_ABSOLUTE = re.compile(
    rf"^\s*\|({NAME})\s*([-+][^|]+)?\|\s*(<|>|\\[lg]e(?![a-zA-Z]))\s*([^<>|,]+?)\s*$"
)
_OR = re.compile(r"\bor\b|\\(?:vee|lor)(?![a-zA-Z])")
_CUP = re.compile(r"\\cup(?![a-zA-Z])")


def intervals(text: str) -> list[Group] | None:
    r"""Return the intervals whose union ``text`` is, as in ``x \ge 2``; None for anything else."""
    built = _SET_BUILDER.fullmatch(text)
    text = _IS_REAL.sub("", built[1] if built else text)
    text = _MEMBER_OF.sub("", text).replace(r"+\infty", r"\infty")
    punctured = _PUNCTURED.fullmatch(text)
    items = members(text)
    holes = [hole for hole in map(_UNEQUAL.fullmatch, items) if hole]
    if punctured or holes:
        rest = [] if punctured else [item for item in items if not _UNEQUAL.fullmatch(item)]
        groups = intervals(", ".join(rest)) if rest else [Group("()", (r"-\infty", r"\infty"))]
        for point in members(punctured[1]) if punctured else (hole[1].strip() for hole in holes):
            groups = _without(point, groups)
        return groups
    text = _ABSOLUTE.sub(_two_bounds, text)
    found: list[Group | None] = []
    for part in _CUP.split(text):
        if _RELATION.search(part):
            pieces = members(part)
            if _OR.search(part):  # a value beside them is a point: x < 1 or x = 3
                found += [_related(p) if _RELATION.search(p) else Group("{}", (p,)) for p in pieces]
            else:
                found += _both([_related(piece) for piece in pieces])
        else:
            found += _plain(part, alone=part == text)
    groups = [group for group in found if group is not None]
    return _merged(groups) if len(groups) == len(found) else None


def _merged(groups: list[Group]) -> list[Group]:
    """Return the intervals with those made one that overlap or touch: [1,3] and (3,5] are [1,5]."""
    spans = []
    for group in groups:
        low, high = _bound(group.items[0]), _bound(group.items[-1])
        if low is None or high is None:
            return groups
        spans.append(((low, group.kind[0] == "("), (high, group.kind[1] != ")"), group))
    spans.sort(key=lambda span: span[:2])
    merged = spans[:1]
    for start, end, group in spans[1:]:
        first, last, before = merged[-1]
        if start[0] > last[0] or (start[0] == last[0] and start[1] and not last[1]):
            merged.append((start, end, group))
        else:
            right = group if end > last else before
            kind = ("(" if first[1] else "[") + ("]" if max(end, last)[1] else ")")
            joined = Group(kind, (before.items[0], right.items[-1]))
            merged[-1] = (first, max(end, last), joined)
    return [group for *_, group in merged]


def _bound(text: str) -> Fraction | float | None:
    infinite = re.fullmatch(r"\s*(-?)\s*\\infty\s*", text)
    return float(f"{infinite[1]}inf") if infinite else _number(text)


def _two_bounds(absolute: re.Match) -> str:
    """``-3 < x < 3`` of ``|x| < 3``."""
    name, shift, relation, bound = absolute.groups()
    low, high = (f"{sign}({bound}) - ({shift or 0})" for sign in ("-", ""))
    if relation in ("<", r"\le"):
        return f"{low} {relation} {name} {relation} {high}"
    return f"{name} {_MIRRORED[relation]} {low} or {name} {relation} {high}"


def _without(point: str, groups: list[Group] | None) -> list[Group] | None:
    """Return the intervals without a point inside one of them; None where none is known to be."""
    value = _number(point)
    groups = groups or []
    for at, group in enumerate(groups):
        (low, left), (high, right) = ((_number(end), end) for end in group.items)
        above = left == r"-\infty" or (value is not None and low is not None and low < value)
        below = right == r"\infty" or (value is not None and high is not None and value < high)
        if above and below:
            halves = (
                Group(group.kind[0] + ")", (left, point)),
                Group("(" + group.kind[1], (point, right)),
            )
            return [*groups[:at], *halves, *groups[at + 1 :]]
    return None


def _both(found: list[Group | None]) -> list[Group | None]:
    groups = [group for group in found if group is not None]
    if len(found) == len(groups) == 2:
        upper, lower = sorted(groups, key=lambda group: group.items[1] == r"\infty")
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


def _plain(text: str, *, alone: bool) -> list[Group | None]:
    if text.strip().startswith("]"):  # the French ]a, b[ is (a, b)
        text = "(" + text.strip()[1:]
    if text.strip().endswith("["):
        text = text.strip()[:-1] + ")"
    group = read_group(text)
    if group.kind == "{}" and not alone:
        return [Group("{}", (item,)) for item in group.items]
    return [group if group.kind not in ("", "{}") and len(group.items) == 2 else None]


def _related(text: str) -> Group | None:
    pieces = [piece.strip() for piece in _RELATION.split(text)]
    if any(operator in (">", r"\ge") for operator in pieces[1::2]):
        pieces = [_MIRRORED.get(piece, piece) for piece in reversed(pieces)]
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


_MATRIX = re.compile(
    r"\\begin\{(?P<name>(?:[pbB]|small)?matrix|array)\}(?:\s*\{[clr| ]*\})?(?P<body>.*)"
    r"\\end\{(?P=name)\}[)\]\s]*(?P<turned>\^\s*\{?(?:T|\\top|\\text\{T\}|\\intercal)\}?\s*)?",
    re.DOTALL,
)
_CASES = re.compile(r"\\begin\{cases\}(.*)\\end\{cases\}", re.DOTALL)
_ABSOLUTE_VALUE = re.compile(rf"\|({NAME})\|")
COMMAND = re.compile(r"\\text\{[^{}]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"\\text\s*\{([^{}]*)\}")


def piecewise(text: str) -> dict[str, str] | None:
    """Return the values of a piecewise function by their conditions; None for anything else."""
    text = _ABSOLUTE_VALUE.sub(
        r"\\begin{cases} \1 & \1\\ge 0 \\\\ -\1 & \1<0 \\end{cases}", text.strip()
    )
    match = _CASES.fullmatch(text)
    found = {}
    for row in filter(str.strip, _ROW_END.split(match[1])) if match else ():
        value, _, condition = row.partition("&")
        condition = re.sub(r"\b(?:if|for|when)\b", "", _WORD.sub(r"\1", condition)).strip(" ,;.")
        groups = intervals(condition) or [Group("", (condition,))]
        names = re.findall("[A-Za-z]+", COMMAND.sub("", condition))
        spans = [(group.kind, [re.sub(r"\s", "", end) for end in group.items]) for group in groups]
        found[f"{names} {spans}"] = value.strip(" ,;")
    return found or None


_COLUMN = re.compile(r"^[(\[]([^()\[\]]+,[^()\[\]]+)[)\]]\^\s*\{?(?:T|\\top|\\text\{T\})\}?$")
_ROW_END = re.compile(r"\\\\(?:\s*\[[^\]]*\])?")


def matrix(text: str) -> list[list[str]] | None:
    r"""Return the rows of one matrix, a factor before it multiplied in; None for anything else."""
    text = _COLUMN.sub(
        lambda row: rf"\begin{{pmatrix}}{row[1].replace(',', '&')}\end{{pmatrix}}^T", text.strip()
    )
    start = text.find(r"\begin{")
    match = _MATRIX.fullmatch(text, start) if start >= 0 else None
    if match is None or r"\begin" in match["body"]:
        return None
    factor = re.sub(r"(?:\\cdot)?[\s(\[]*$", "", text[:start]).strip()
    form = {"": "{}", "-": "-({})"}.get(factor, rf"({factor}) \cdot ({{}})")
    rows = [row.split("&") for row in _ROW_END.split(match["body"]) if row.strip()]
    if match["turned"] and len({*map(len, rows)}) == 1:
        rows = [list(row) for row in zip(*rows, strict=True)]
    return [[form.replace("{}", cell.strip()) for cell in row] for row in rows]
