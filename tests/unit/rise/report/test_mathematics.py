r"""Formulas in what a model wrote, which is often cut off or no LaTeX at all.

python -m pytest tests/unit/rise/report/test_mathematics.py
"""

import itertools

from rise.report.mathematics import Formulas

TOKENS = ["$", "$$", r"\(", r"\)", r"\[", r"\]", r"\boxed{", "}", "x^2", "5", " ", "\n", "\\"]


def test_what_is_no_formula_stays_text():
    for text in ("$$", "so $$5", r"cut off: $$\frac{1}{", "$ $", r"\(\)"):
        assert Formulas().pieces(text) == [text]


def test_any_text_becomes_pieces():
    formulas = Formulas()
    for tokens in itertools.product(TOKENS, repeat=4):
        text = "".join(tokens)
        plain = [piece for piece in formulas.pieces(text) if isinstance(piece, str)]
        assert len("".join(plain)) <= len(text) and all(piece in text for piece in plain)
