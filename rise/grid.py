"""A table of texts as plain text, Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)


def text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces: the first to the left, the others to the right.

    >>> print(text(["run", "m1@t1"], [["base", "38.0"], ["rise", "39.0"]]))
    run   m1@t1
    base   38.0
    rise   39.0
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    )


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""A Markdown table.

    >>> print(markdown(["run", "m1@t1"], [["a|b", "38.0"]]))
    | run | m1@t1 |
    |---|---:|
    | a\|b | 38.0 |
    """
    rule = "|---" + "|---:" * (len(header) - 1) + "|"
    lines = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in (header, *rows)
    ]
    return "\n".join([lines[0], rule, *lines[1:]])


def latex(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""A LaTeX tabular (booktabs).

    >>> print(latex(["run", "m1@t1"], [["my_run", "38.0"]]))
    \begin{tabular}{lr}
    \toprule
    run & m1@t1 \\
    \midrule
    my\_run & 38.0 \\
    \bottomrule
    \end{tabular}
    """
    first, *others = (
        " & ".join(cell.translate(LATEX) for cell in row) + r" \\" for row in (header, *rows)
    )
    columns = "l" + "r" * (len(header) - 1)
    begin = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", first, r"\midrule"]
    return "\n".join([*begin, *others, r"\bottomrule", r"\end{tabular}"])


def comma_separated(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Comma-separated values.

    >>> print(comma_separated(["run", "m1@t1"], [["a, b", "38.0"]]))
    run,m1@t1
    "a, b",38.0
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    return buffer.getvalue().rstrip("\n")
