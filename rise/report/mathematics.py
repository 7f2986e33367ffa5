r"""The formulas in a model's text, as MathML that cannot do anything but be read.

A text becomes pieces: plain text, or a reference to a formula. Formulas are what stands between
`$ $`, `$$ $$`, `\( \)` and `\[ \]`, and a `\boxed{}` outside of them. What the converter does not
understand stays text. A model's output is not trusted: only known elements and attributes of the
converter's result are kept, as plain lists from which the page builds elements one by one; no
markup is ever parsed.
"""

import html
import logging
import re
from typing import Any
from xml.etree.ElementTree import Element

LONGEST = 500
"""Characters of a formula that is converted; longer ones are rarely formulas."""
# A dollar sign opens a formula where no space follows, and closes one where no space is before it
# and no digit behind it: "$5 and $7" are prices. What \( opens holds no second \(, and so for \[:
# a text that opens one after the other is not read to its end from each. After a backslash they
# open nothing: \\[2pt] is the end of a line.
FORMULA = re.compile(
    r"\$\$(?P<display>[^$]+)\$\$"
    r"|(?<!\\)\\\[(?P<bracket>(?:[^\\]|\\[^\[\]])+)\\\]"
    r"|(?<!\\)\\\((?P<round>(?:[^\\]|\\[^()])+)\\\)"
    r"|\$(?P<dollar>(?=[^\s$])[^$\n]*?(?<=\S))\$(?!\d)"
    r"|(?P<box>\\boxed\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})",
    re.DOTALL,
)
TAGS = frozenset(
    re.findall(
        r"\w+",
        "math mrow mi mn mo mtext mspace msup msub msubsup mfrac msqrt mroot mover munder "
        "munderover mtable mtr mtd menclose mstyle mpadded mphantom",
    )
)
ATTRIBUTES = frozenset(
    re.findall(
        r"\w+",
        "accent columnalign columnlines columnspacing depth displaystyle fence form height largeop "
        "linebreak linethickness lspace mathvariant maxsize minsize movablelimits notation "
        "rowlines rowspacing rspace scriptlevel separator stretchy symmetric voffset width",
    )
)

Piece = str | list[int]
"""A plain text, or [index of a formula, 1 where it has a line of its own else 0]."""


class Formulas:
    """All formulas of a page, each once.

    >>> formulas = Formulas()
    >>> formulas.pieces("so $x^2$ costs $5, not $6")
    ['so ', [0, 0], ' costs $5, not $6']
    >>> formulas.trees[0]
    ['math', {}, ['mrow', {}, ['msup', {}, ['mi', {}, 'x'], ['mn', {}, '2']]]]
    """

    def __init__(self) -> None:
        self.trees: list[list[Any]] = []
        """Nested lists [tag, attributes, child or text, ...]."""
        self._known: dict[str, int | None] = {}

    def pieces(self, text: str) -> list[Piece]:
        found: list[Piece] = []
        end = 0
        for match in FORMULA.finditer(text):
            index = self._index(match[match.lastgroup or 0].strip())
            if index is None:
                continue
            if match.start() > end:
                found.append(text[end : match.start()])
            own_line = match["display"] or match["bracket"]
            found.append([index, 1 if own_line else 0])
            end = match.end()
        return found + ([text[end:]] if end < len(text) else [])

    def _index(self, latex: str) -> int | None:
        if latex not in self._known:
            tree = _tree(latex) if 0 < len(latex) <= LONGEST else None
            self._known[latex] = None if tree is None else len(self.trees)
            if tree is not None:
                self.trees.append(tree)
        return self._known[latex]


def _tree(latex: str) -> list[Any] | None:
    from latex2mathml.converter import convert_to_element

    try:
        return _plain(convert_to_element(latex))
    except Exception as error:
        # The converter raises errors of many kinds for text that is no LaTeX.
        logging.getLogger(__name__).debug("%r stays text: %s", latex, type(error).__name__)
        return None


def _plain(element: Element) -> list[Any]:
    if element.tag not in TAGS:
        raise ValueError(f"the element {element.tag!r} is not known")
    attributes = {name: value for name, value in element.attrib.items() if name in ATTRIBUTES}
    # The converter writes characters as entities, for a parser that is not used here.
    text = [html.unescape(element.text)] if element.text and element.text.strip() else []
    return [element.tag, attributes, *text, *map(_plain, element)]
