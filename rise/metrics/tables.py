"""The closing table of an evaluation, and tables as plain text, Markdown, LaTeX or CSV.

The first has at most ten lines, and two more where turn 1 has further samples to draw afresh; the
last one says what the run shows; warnings follow.
"""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

HEADLINE = re.compile(r"[mp]\d+@t\d+")
ALPHA = 0.05
FEW, TOO_FEW = 10, "too few to tell"
PAIRED_LINES = 2  # with four headline rates the table has ten lines


def format_table(metrics: dict[str, Any]) -> str:
    """The metrics of `rise.metrics.summary.summarise` as text: value, 95 % interval and n of each.

    >>> rate = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 96}
    >>> gain = {"value": 0.1, "low": 0.04, "high": 0.16, "n": 96, "p_value": 0.002}
    >>> print(format_table({"feedback": "none", "max_turns": 3, "m1@t1": rate, "acc@t": [rate] * 3,
    ...     "paired": {"m1@t3 - m1@t1": gain}, "no_answer": [rate] * 3, "length": [rate] * 3,
    ...     "warnings": ["50.0 % of the answers of turn 1 were cut"]}))
    metric           value    95 % interval      n
    m1@t1           50.0 %     40.0 to 60.0     96
    m1@t3 - m1@t1    +10.0    +4.0 to +16.0     96   p = 0.002
    acc@t, turn 1 to 3: 50.0 -> 50.0 -> 50.0 %
    no answer 50.0 -> 50.0 -> 50.0 %, cut at the token limit 50.0 -> 50.0 -> 50.0 %
    m1@t3 is above m1@t1 by 10.0 points (95 % interval +4.0 to +16.0, p = 0.002, n = 96).
    Warning: 50.0 % of the answers of turn 1 were cut.
    """
    lines = [f"{'metric':<13}{'value':>9}{'95 % interval':>17}{'n':>7}"]
    for name in sorted(filter(HEADLINE.fullmatch, metrics), key=headline_order):
        rate = metrics[name]
        interval = interval_of(rate, sign="")
        lines.append(f"{name:<13}{100 * rate['value']:>7.1f} %{interval:>17}{rate['n']:>7}")
    for name, rate in list(_telling(metrics).items())[:PAIRED_LINES]:
        value, interval = 100 * rate["value"], interval_of(rate)
        lines.append(
            f"{name:<13}{value:>+9.1f}{interval:>17}{rate['n']:>7}   {format_p(rate['p_value'])}"
        )
    if metrics["max_turns"] > 1:
        lines.append(f"acc@t, turn 1 to {metrics['max_turns']}: {_by_turn(metrics['acc@t'])}")
    lines.append(
        f"no answer {_by_turn(metrics['no_answer'])}, "
        f"cut at the token limit {_by_turn(metrics['length'])}"
    )
    lines += fresh_in_words(metrics)
    if "revisions" in metrics:
        lines.append(_own_checks(metrics))
    warnings = [f"Warning: {warning}." for warning in metrics["warnings"]]
    return "\n".join([*lines, statement(metrics), *warnings])


def statement(metrics: dict[str, Any]) -> str:
    """One sentence: the most telling difference; it counts where 0 is outside and p below 0.05."""
    for name, rate in _telling(metrics).items():
        ours, theirs = name.split(" - ")
        value, interval = 100 * rate["value"], interval_of(rate)
        interval = interval if interval == TOO_FEW else f"95 % interval {interval}"
        evidence = f"{interval}, {format_p(rate['p_value'])}, n = {rate['n']}"
        if rate["p_value"] >= ALPHA or rate["low"] <= 0 <= rate["high"]:
            return f"{ours} and {theirs} cannot be told apart: {value:+.1f} points ({evidence})."
        side = "above" if value > 0 else "below"
        return f"{ours} is {side} {theirs} by {abs(value):.1f} points ({evidence})."
    first, last = (100 * metrics["acc@t"][turn]["value"] for turn in (0, -1))
    if metrics["feedback"] == "oracle" and metrics["max_turns"] > 1:
        return (
            f"With the oracle {last:.1f} % are solved within {metrics['max_turns']} turns, "
            f"{first:.1f} % at turn 1; without it nobody would know which answer to take."
        )
    if metrics["feedback"] == "verdict" and metrics["max_turns"] > 1:
        return (
            f"Told whether it was right, the model is right on {last:.1f} % at turn "
            f"{metrics['max_turns']}, on {first:.1f} % at turn 1; that rests on the references."
        )
    if metrics["max_turns"] == 2:
        return (
            f"Turn 2 is right on {last:.1f} % of {metrics['m1@t1']['n']} problems, turn 1 on "
            f"{first:.1f} %; a vote needs three turns to differ from turn 1."
        )
    return f"One sample at turn 1 is right on {first:.1f} % of {metrics['m1@t1']['n']} problems."


def fresh_in_words(metrics: dict[str, Any]) -> list[str]:
    """Turn 2 beside a fresh draw: a line for right attempts, and one for wrong ones.

    >>> gain = {"value": 0.1, "low": 0.04, "high": 0.16, "n": 96}
    >>> pair = {"next": {"value": 0.8}, "fresh": {"value": 0.7}, "difference": gain}
    >>> fresh_in_words({"fresh_draw": {"after_right": {"1,2": pair}, "after_wrong": {}}})[0][:47]
    'after a right attempt turn 2 is right in 80.0 %'
    """
    lines = []
    for name, rates in metrics.get("fresh_draw", {}).items():
        if pair := rates.get("1,2"):
            turn_2, fresh = (100 * pair[key]["value"] for key in ("next", "fresh"))
            gain = pair["difference"]
            lines.append(
                f"{name.replace('_', ' a ')} attempt turn 2 is right in {turn_2:.1f} %, "
                f"a fresh draw of turn 1 in {fresh:.1f} %: {100 * gain['value']:+.1f} "
                f"({interval_of(gain)}, n = {gain['n']})"
            )
    return lines


def fresh_differences(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Turn 2 minus a fresh draw of the same problems, by name; empty without further samples."""
    return {
        f"turn 2 - fresh draw, {name.replace('_', ' ')}": rates["1,2"]["difference"]
        for name, rates in metrics.get("fresh_draw", {}).items()
        if "1,2" in rates
    }


def _own_checks(metrics: dict[str, Any]) -> str:
    check = metrics["check"]
    unread = [bool(rate) and rate["value"] == 1 for rate in check["unclear"]]
    precision, recall = (
        _by_turn([None if no else rate for no, rate in zip(unread, check[name], strict=True)])
        for name in ("precision", "recall")
    )
    return (
        f"own check: {metrics['revisions']['value']:.2f} revisions per problem; "
        f"wrong where it says so {precision}, wrong ones found {recall}"
    )


def _telling(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Without the difference that is about 0 by construction: a tie of two turns goes to turn 1."""
    return {name: rate for name, rate in metrics["paired"].items() if name != "m1@t2 - m1@t1"}


def headline_order(name: str) -> tuple[int, str]:
    """Sorts headline rates: m1@t1, then votes of samples, votes of turns, any of the turns.

    >>> sorted(["p1@t5", "m1@t5", "m5@t1", "m1@t1"], key=headline_order)
    ['m1@t1', 'm5@t1', 'm1@t5', 'p1@t5']
    """
    kind, turns = name.split("@")
    if name == "m1@t1":
        return 0, name
    return (3 if kind.startswith("p") else 1 if turns == "t1" else 2), name


def interval_of(rate: dict[str, Any], sign: str = "+") -> str:
    """An interval in percent, or that there are too few problems for one.

    >>> interval_of({"low": 0.04, "high": 0.16, "n": 96}), interval_of({"n": 9})
    ('+4.0 to +16.0', 'too few to tell')
    """
    if rate["n"] < FEW:
        return TOO_FEW
    return f"{100 * rate['low']:{sign}.1f} to {100 * rate['high']:{sign}.1f}"


def format_p(p_value: float) -> str:
    """A p value as tables print it.

    >>> format_p(0.0123), format_p(1e-9)
    ('p = 0.012', 'p < 0.001')
    """
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def _by_turn(rates: list[dict[str, float] | None]) -> str:
    return " -> ".join(f"{100 * rate['value']:.1f}" if rate else "-" for rate in rates) + " %"


LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)


MARKDOWN = re.compile(r"[\\|`*_<>\[\]!#~&]")
FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d. %+to()-]*$)")


def _one_line(cell: str) -> str:
    return " ".join(cell.split())


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
        "| " + " | ".join(MARKDOWN.sub(r"\\\g<0>", _one_line(cell)) for cell in row) + " |"
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
        " & ".join(_one_line(cell).translate(LATEX) for cell in row) + r" \\"
        for row in (header, *rows)
    )
    columns = "l" + "r" * (len(header) - 1)
    begin = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", first, r"\midrule"]
    return "\n".join([*begin, *others, r"\bottomrule", r"\end{tabular}"])


def comma_separated(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Comma-separated values.

    >>> print(comma_separated(["run", "m1@t1"], [["a, b", "38.0"], ["=1+1", "-2.0"]]))
    run,m1@t1
    "a, b",38.0
    '=1+1,-2.0
    """
    buffer = io.StringIO()
    # A spreadsheet computes what begins like a formula; a number may begin with a sign.
    cells = [["'" * bool(FORMULA.match(cell)) + cell for cell in row] for row in (header, *rows)]
    csv.writer(buffer, lineterminator="\n").writerows(cells)
    return buffer.getvalue().rstrip("\n")
