r"""Values with names, ``x = 1, y = 2``, ``(p,q) = (3,2)``, ``AB = 5``, and equations without one.

Works on text that ``latex.clean`` has brought into one spelling.
"""

import re
from dataclasses import dataclass

from envs.grading.shapes import COMMAND, NAME, read_group, split
from envs.grading.units import without_unit


@dataclass(frozen=True)
class Solved:
    """``x = 1, y = 2 or x = 3, y = 4``: names, and a value of each in every solution."""

    names: tuple[str, ...]
    solutions: tuple[dict[str, str], ...]
    ordered: bool = False
    """Whether they stood as a tuple, ``(x_1,x_2) = (2,3)``."""

    def order(self) -> tuple[str, ...]:
        """The names, neighbours in the alphabet in its order: y = 2, x = 1 is the point (1,2)."""
        names = tuple(sorted(self.names))
        return names if "".join(names) in "abcdefghijklmnopqrstuvwxyz" else self.names

    def values(self, order: tuple[str, ...]) -> str:
        """Return ``(1,2), (3,4)``; the values alone where there is one name."""
        rows = (",".join(solution[name] for name in order) for solution in self.solutions)
        return ", ".join(rows if len(order) == 1 else (f"({row})" for row in rows))

    def roots(self) -> str | None:
        """Return ``2, 3`` of ``x_1 = 2, x_2 = 3``, values of one unknown; None for other names."""
        unknowns = {_ROOT.sub(r"\1", name) for name in self.names}
        several = len(self.names) > len(unknowns) == len(self.solutions) == 1
        return ", ".join(self.solutions[0].values()) if several and not self.ordered else None


def solved(text: str) -> Solved | None:
    r"""Read ``x = 1, x = 2``, ``(p,q) = (3,2)``, ``AB = 5``; None where a left side is no name."""
    pairs: list[tuple[str, str]] = []
    label = ""
    for item in filter(str.strip, split(text)):
        *left, value = (side.strip() for side in _SIDES.split(item))
        if len(left) == 1 and _NAME.fullmatch(value) and not _NAME.fullmatch(left[0]):
            left, value = [value], left[0]  # 5 = x
        label = left[0] if left else label
        name = _NAME.fullmatch(label) or _VECTOR.fullmatch(label)
        constant = not _LETTER.search(COMMAND.sub(" ", without_unit(value)))
        if not (label and value and (constant or (name and len(left) < 2))):
            return None
        if _VECTOR.fullmatch(label):
            parts, values = split(label[1:-1]), read_group(value).items
            if not name or len(parts) != len(values):
                return None
            pairs += zip(map(_bare, parts), values, strict=True)
        elif name or _LABEL.fullmatch(_outline(label) or "a"):
            pairs.append((_bare(label), value))
        else:
            return None
    names = tuple(dict.fromkeys(name for name, _ in pairs))
    if not names:
        return None
    rows = tuple(dict(pairs[i : i + len(names)]) for i in range(0, len(pairs), len(names)))
    complete = all(len(row) == len(names) for row in rows)
    return Solved(names, rows, _VECTOR.fullmatch(label) is not None) if complete else None


def is_equation(text: str) -> bool:
    """Whether ``text`` is ``x^2 - 5x + 6 = 0`` or the like, rather than a name and its value."""
    return "=" in text and any(_POLYNOMIAL.search(_outline(side)) for side in _SIDES.split(text))


_SUM = re.compile(r"(?:[a-w]+|[A-Z]{2}|[a-w]\^\d)(?:\+(?:[a-w]+|[A-Z]{2}|[a-w]\^\d))*")
_ROOT = re.compile(r"^(x|z|\\lambda)_\d$")
_SIDES = re.compile(r"=(?![^{}]*\})(?![^()\[\]]*\))")
_COMBINED = r"\(\s*[fgh]\s*(?:\\circ|\\cdot|[-+/])?\s*[fgh]\s*\)"
_NAME = re.compile(
    rf"(?:{NAME}(?:\^\{{-1\}})?|{_COMBINED})(?:\([A-Za-z, ]+\))?|[fgh]\([fgh]\([a-z]\)\)"
    r"|\\(?:bar|hat|overline|complement)(?![A-Za-z])\s*(?:\{\s*\w\s*\}|_\{?\w\}?\s*\w|\w)"
    r"|[A-Z](?:\s*\\(?:cup|cap|setminus)(?![A-Za-z])\s*[A-Z])+"
)
_VECTOR = re.compile(rf"\(\s*{NAME}(?:\s*,\s*{NAME})+\s*\)")
_LETTER = re.compile(r"(?![ei](?![A-Za-z]))[A-Za-z]")
_LABEL = re.compile(
    # AB, a + b, V:V; x, y and z only in ratios, as sums of them are rather the equation of a curve
    r"(?:[A-Za-w](?:\^\d+)?)+(?:[-+:/](?:[A-Za-w](?:\^\d+)?)+)*|[A-Za-z](?:[:/][A-Za-z])+|[^A-Za-z]+"
)
_POLYNOMIAL = re.compile(
    r"\d[A-Za-z]|[A-Za-z][(^]|[x-z].*[-+]|[-+].*[x-z]|[A-Za-z].*[-+]\d|\d[-+].*[A-Za-z]"
)
_FUNCTION_NAME = r"\\(?:(?:arc)?(?:sin|cos|tan|cot|sec|csc)|log|ln|lg|gcd|det|operatorname\{\w+\})"
_FIGURE = (
    r"\\(?:angle|triangle|overline|overrightarrow|vec|bar|hat|binom|cdot|times|frac|sqrt|circ)\b"
)
_ARGUMENT = r"\s*(?:\([^()]*\)|\{[^{}]*\}|\d*(?:\\[a-z]+|[A-Za-z]+)|\d+)(?:\^\{\\circ\})?"
_OUTLINE = [
    (r"\\(?:text|operatorname)\{[A-Za-z]{2,}\}\s*\([^()=]*\)", "a"),
    (r"\\text\{([A-Za-z])\}", r"\1"),
    (r"\\text\{[^{}]*\}|(?<![A-Za-z\\])(?:[A-Za-z]{4,}|[Tt]he|max|min|is|of|so)(?![A-Za-z])", ""),
    (rf"{_FUNCTION_NAME}(?:[_^](?:\{{[^{{}}]*\}}|\w))*{_ARGUMENT}", "a"),
    (r"\\(?:int|sum|prod|lim)(?![a-z]).*|\|(?:z|[-+\d\s]*i)\||[fgh]_\{[^{}]*\}\([a-z]\)", "a"),
    (r"[A-Za-z]_(?:\{[^{}]*\}|\w)", "a"),
    (r"([fghpqrA-Z])\(\w\((-?\w+)\)\)", r"\1(\2)"),
    (
        rf"{_COMBINED}\([^()]*\)|[mn]\((?=[^()]*[A-Z])[^()]*\)|\\lfloor.*?\\rfloor|\\lceil.*?\\rceil",
        "a",
    ),
    (r"[fghpqrA-Z]'*(?:\^\{[^{}]*\})?\([^()]*\)(?:_(?:\{[^{}]*\}|\\?\w+))?", "a"),
    (r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2"),
    (_FIGURE + r"|\\#", ""),
    (r"\\[A-Za-z]+", "a"),
    (r"[\s{}\[\]|'\\]", ""),
]


def _outline(text: str) -> str:
    """Return ``text`` with a letter for everything that has a name: f(2), x_1, sin 2x."""
    for pattern, replacement in _OUTLINE:
        text = re.sub(pattern, replacement, text)
    return text


def _bare(name: str) -> str:
    """One spelling of a name: b + a is a + b, the length BA is AB, and y is f(x)."""
    bare = re.sub(r"[\s{}]|\\text|\\(?=m(?:ax|in))", "", name)
    bare = re.sub(r"^(?:\|([A-Z]{2})\||\\overline([A-Z]{2}))$", r"\1\2", bare)
    if _SUM.fullmatch(bare):
        terms = (term if "^" in term else "".join(sorted(term)) for term in bare.split("+"))
        return "+".join(sorted(terms))
    function = re.fullmatch(r"([A-EG-Za-z])\([nxtz]\)", bare)  # p(n) = 1 is P(x) = 1
    bare = f"{function[1].lower()}(x)" if function else bare
    return "y" if bare == "f(x)" else bare
