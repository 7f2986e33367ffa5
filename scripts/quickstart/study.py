"""The end of `scripts/study.sh`: the four metrics of every model, over the seeds and by seed.

    python scripts/quickstart/study.py log/study --seeds 0 1 2 --models base control rise all-none

Reads   DIR/seedS/eval/NAME: runs of workflow_eval.py.
Writes  DIR/study.json and DIR/study.md.

A seed decides the sampling and the training, in the quickstart the problems and the base model too,
so the intervals here are over seeds (Student's t), not over problems.
"""

import argparse
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastchat.utils import Parser, write_json
from rise.metrics import tables
from rise.program.exits import run_program
from rise.program.files import read_object

METRICS = ("m1@t1", "m5@t1", "m1@t5", "p1@t5")
GAIN = "m1@t5 - m5@t1"
"""The paper's claim: votes of equally many answers."""
VERSUS = "m1@t5 - rise"
"""What a variant changes, each seed against the same seed: the seed itself drops out."""


def over_seeds(values: Sequence[float]) -> dict[str, float | int | None]:
    """The mean with its 95 % interval over seeds (Student's t); none for a single seed.

    >>> over_seeds([0.5, 0.7])["value"], over_seeds([0.5])["low"]
    (0.6, None)
    >>> {name: round(number, 3) for name, number in over_seeds([0.4, 0.5, 0.6]).items()}
    {'value': 0.5, 'low': 0.252, 'high': 0.748, 'n': 3}
    """
    from scipy.stats import t

    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return {"value": mean, "low": None, "high": None, "n": n}
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / n**0.5
    return {"value": mean, "low": mean - half, "high": mean + half, "n": n}


def collect(directory: Path, seeds: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Model -> metric -> rate over the seeds, with the values of each seed as "by_seed"."""
    found: dict[str, Any] = {}
    for name in names:
        runs = [_metrics(directory / f"seed{seed}" / "eval" / name) for seed in seeds]
        values = {metric: [run[metric] for run in runs] for metric in METRICS}
        values[GAIN] = [run["m1@t5"] - run["m5@t1"] for run in runs]
        found[name] = {
            metric: over_seeds(numbers) | {"by_seed": dict(zip(seeds, numbers, strict=True))}
            for metric, numbers in values.items()
        }
    reference = found["rise"]["m1@t5"]["by_seed"]
    for name, rates in found.items():
        if name != "rise":
            by_seed = {seed: rates["m1@t5"]["by_seed"][seed] - reference[seed] for seed in seeds}
            rates[VERSUS] = over_seeds([*by_seed.values()]) | {"by_seed": by_seed}
    return found


def table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    columns = [*METRICS, GAIN, VERSUS]
    rows = [
        [name, *(_cell(rates.get(metric), metric) for metric in columns)]
        for name, rates in found.items()
    ]
    return ["model", *columns], rows


def seed_table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [name, *(f"{100 * value:.1f}" for value in rates["m1@t5"]["by_seed"].values())]
        for name, rates in found.items()
    ]
    return ["m1@t5 of seed", *found["rise"]["m1@t5"]["by_seed"]], rows


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python scripts/quickstart/study.py", description=__doc__)
    parser.add_argument("directory", type=Path, help="what scripts/study.sh wrote")
    parser.add_argument("--seeds", nargs="+", required=True, help="seeds to take together")
    parser.add_argument("--models", nargs="+", required=True, help="runs, rise among them")
    args = parser.parse_args(argv)
    if "rise" not in args.models:
        parser.error("--models needs rise, with which the others are compared")
    for flag, names in (("--seeds", args.seeds), ("--models", args.models)):
        if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
            parser.error(f"{flag}: {', '.join(repeated)} would count twice: give each once")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        found = collect(args.directory, args.seeds, args.models)
    except ValueError as error:
        print(f"study.py: error: {error}", file=sys.stderr)
        return 2
    both = [table(found), seed_table(found)]
    print("\n\n".join(tables.text(header, rows) for header, rows in both))
    print(f"\nPercent, mean over {len(args.seeds)} seeds (95 % interval over the seeds).")
    write_json(args.directory / "study.json", found)
    markdown = args.directory / "study.md"
    text = "\n\n".join(tables.markdown(header, rows) for header, rows in both)
    markdown.write_text(text + "\n", encoding="utf-8")
    print(f"Wrote {markdown} and study.json; the report of each seed is seedS/report.html.")
    return 0


def _metrics(run: Path) -> dict[str, float]:
    summary = run / "summary.json"
    if not summary.is_file():
        raise ValueError(f"{summary} is missing: run bash scripts/study.sh again")
    metrics = read_object(summary).get("metrics") or {}
    if missing := [metric for metric in METRICS if metric not in metrics]:
        raise ValueError(
            f"{summary} has no {', '.join(missing)}: run bash scripts/study.sh again, which "
            "evaluates over five turns and with five samples"
        )
    return {metric: metrics[metric]["value"] for metric in METRICS}


def _cell(rate: dict[str, Any] | None, metric: str) -> str:
    if rate is None:
        return ""
    sign = "+" if metric in (GAIN, VERSUS) else ""
    if rate["low"] is None:
        return f"{100 * rate['value']:{sign}.1f}"
    low, high = 100 * rate["low"], 100 * rate["high"]
    return f"{100 * rate['value']:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


if __name__ == "__main__":
    run_program(main)
