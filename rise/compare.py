"""Compare evaluations: the paper's table, with paired tests and the cost of each vote.

    python -m rise.compare log/base log/rise
    python -m rise.compare log/base log/boost log/rise --names base boost RISE --format latex

Reads   run directories of workflow_eval.py; a parallel run in the same --log_dir gives mK@t1.
Writes  the table to standard output, in text, markdown, latex or csv, or everything as json.

The first run is the one that the others are tested against.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastchat.utils import Parser
from rise.metrics import tables
from rise.metrics.comparison import compare
from rise.metrics.evaluation import EvaluatedRun, open_run
from rise.metrics.tables import format_p, headline_order
from rise.program.exits import DONE, exit_code, run_program

FORMATS: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], str]] = {
    "text": tables.text,
    "markdown": tables.markdown,
    "latex": tables.latex,
    "csv": tables.comma_separated,
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m rise.compare", description=__doc__)
    add_runs(parser, "two or more")
    parser.add_argument("--format", choices=[*FORMATS, "json"], default="text", help="default text")
    return parser.parse_args(argv)


def add_runs(parser: argparse.ArgumentParser, how_many: str) -> None:
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help=f"run directories, {how_many}")
    add("--names", nargs="+", help="what they are called; default their directories' names")


def opened(args: argparse.Namespace) -> list[EvaluatedRun]:
    """The runs of `add_runs`; ValueError if one cannot be opened, or some lack a name."""
    names = args.names or names_of(args.runs)
    if len(names) != len(args.runs):
        raise ValueError(f"{len(names)} --names for {len(args.runs)} runs: give one for each")
    return [open_run(path, name) for path, name in zip(args.runs, names, strict=True)]


def run(args: argparse.Namespace) -> int:
    found = compare(opened(args))
    if args.format == "json":
        print(json.dumps(found, indent=2))
        return DONE
    draw = FORMATS[args.format]
    print(draw(*paper_table(found)))
    if args.format in ("text", "markdown"):
        print(f"\n{draw(*difference_table(found))}\n")
        print("Cells: percent (gain over m1@t1 of the same run).", *found["notes"], sep="\n")
    return DONE


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: run(args), "rise.compare")


def names_of(paths: Sequence[str]) -> list[str]:
    """The directories' names, or the whole paths where two are alike.

    >>> names_of(["log/base/", "log/rise"]), names_of(["a/eval", "b/eval"])
    (['base', 'rise'], ['a/eval', 'b/eval'])
    """
    names = [Path(path).resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [path.rstrip("/") for path in paths]


def paper_table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    names = sorted({name for run in found["runs"] for name in run["metrics"]}, key=headline_order)
    votes = [name for name in names if name.startswith("m") and name != "m1@t1"]
    header = ["run", "n", *names, *(f"cost of {name}" for name in votes)]
    rows = []
    for run in found["runs"]:
        cells = [_cell(run, name) for name in names]
        costs = [_cost(run["cost"].get(name)) for name in votes]
        rows.append([run["name"], str(run["n"]), *cells, *costs])
    return header, rows


def difference_table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Turns against samples and fresh draws within each run, then each run against the first."""
    header = ["difference", "points", "95 % interval", "p (McNemar)", "n"]
    rows = []
    for run in found["runs"]:
        for name, rate in run["paired"].items():
            if not name.endswith(" - m1@t1"):
                rows.append(_difference_row(f"{run['name']}: {name}", rate))
        for name, rate in run["fresh_draw"].items():
            rows.append(_difference_row(f"{run['name']}: {name}", rate))
    for test in found["tests"]:
        for name, rate in test["metrics"].items():
            rows.append(_difference_row(f"{name}: {test['run']} - {test['against']}", rate))
    return header, rows


def _difference_row(name: str, rate: dict[str, Any]) -> list[str]:
    value, low, high = (100 * rate[key] for key in ("value", "low", "high"))
    # Shares of several samples, as in a fresh draw, have no McNemar test.
    p_value = format_p(rate["p_value"]) if "p_value" in rate else "-"
    p_value = p_value.removeprefix("p ").removeprefix("= ")
    return [name, f"{value:+.1f}", f"{low:+.1f} to {high:+.1f}", p_value, str(rate["n"])]


def _cost(cost: dict[str, float] | None) -> str:
    if cost is None:
        return "-"
    return f"{cost['samples']:g} samples, {cost['completion_tokens']:.0f} tokens"


def _cell(run: dict[str, Any], name: str) -> str:
    if name not in run["metrics"]:
        return "-"
    value = f"{100 * run['metrics'][name]['value']:.1f}"
    gain = run["gains"].get(name)
    return f"{value} ({100 * gain['value']:+.1f})" if gain else value


if __name__ == "__main__":
    run_program(main)
