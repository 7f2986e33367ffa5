"""How often graders agree with a careful reader, and how many answers they grade per second.

    python scripts/benchmarks/graders.py > graders.md
    python scripts/benchmarks/graders.py --rows tests/support/grading/gsm8k.jsonl --runs 1

Reads JSON lines `{"env", "response", "reference", "label", "category"}`, label being right, wrong
or no_answer as a careful reader has it; writes markdown tables to standard output. Three graders:
ours (`envs`), math-verify alone in its default configuration on the whole response, and equality
of the strings in the last boxes. Everything runs on one core, one answer after the other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

from baselines import Grader, MathVerify, Row, ours, read_row, reward_of, same_string

ROOT = Path(__file__).resolve().parents[2]
ROWS = [ROOT / "tests/support/grading" / name for name in ("gsm8k.jsonl", "math.jsonl")]
TIMED = 200
"""Rows at least that a slow grader is timed on, taken at equal distances."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", nargs="+", type=Path, default=ROWS, help="files of labelled rows; default: ours"
    )
    parser.add_argument(
        "--runs",
        type=int,
        default=3,
        help="timed runs, whose median and range are given; default 3",
    )
    args = parser.parse_args()
    if args.runs < 1:
        parser.error(f"--runs is {args.runs}: use 1 or more")
    for path in args.rows:
        if not path.is_file():
            parser.error(f"--rows: no file {path}")
    return args


def main() -> int:
    args = parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import envs

    rows = [read_row(line) for path in args.rows for line in path.open(encoding="utf-8")]
    alone = MathVerify()
    graders: dict[str, Grader] = {"ours": ours, "math-verify": alone.grade, "string": same_string}
    # starts the grading processes, so that the first answer is not a slow one
    ours(Row("math", r"\boxed{\sqrt{8}}", r"\boxed{2\sqrt{2}}", "right", ""))
    alone.grade(rows[0])
    rewards = {name: [grade(row) for row in rows] for name, grade in graders.items()}
    print_totals(rows, rewards)
    print_categories(rows, rewards)
    print_errors(rows, rewards["ours"])
    print_speeds(rows, graders, args.runs)
    alone.stop()
    envs.shutdown()
    return 0


# --- the tables ------------------------------------------------------------------------------


def print_totals(rows: list[Row], rewards: dict[str, list[int]]) -> None:
    """Accuracy per environment, with the three kinds of error."""
    from rise.metrics.statistics import wilson

    print("| rows | grader | accuracy | 95 % interval | FP | FN | wrong code |")
    print("|---|---|---|---|---|---|---|")
    for env in dict.fromkeys(row.env for row in rows):
        for name, given in rewards.items():
            outcomes = [
                outcome(row, reward)
                for row, reward in zip(rows, given, strict=True)
                if row.env == env
            ]
            kinds, rate = Counter(outcomes), wilson([kind == "agrees" for kind in outcomes])
            print(
                f"| {env} (n = {rate.n}) | {name} | {rate.value:.1%} "
                f"| {rate.low:.1%} to {rate.high:.1%} "
                f"| {kinds['FP']} | {kinds['FN']} | {kinds['code']} |"
            )


def outcome(row: Row, reward: int) -> str:
    """Return agrees, FP (a wrong answer is paid), FN (a right one is not) or code (0 for -1)."""
    if reward == reward_of(row.env, row.label):
        return "agrees"
    return "FP" if reward == 1 else "FN" if row.label == "right" else "code"


def print_categories(rows: list[Row], rewards: dict[str, list[int]]) -> None:
    """Accuracy per category of each environment."""
    print(
        f"\n| environment | category | n | {' | '.join(rewards)} |\n|{'---|' * (3 + len(rewards))}"
    )
    for env, category in sorted({(row.env, row.category) for row in rows}):
        chosen = [i for i, row in enumerate(rows) if (row.env, row.category) == (env, category)]
        shares = [
            sum(outcome(rows[i], given[i]) == "agrees" for i in chosen) / len(chosen)
            for given in rewards.values()
        ]
        cells = " | ".join(f"{share:.1%}" for share in shares)
        print(f"| {env} | {category} | {len(chosen)} | {cells} |")


def print_errors(rows: list[Row], given: list[int]) -> None:
    """Every row on which our grader and the label differ."""
    print("\nOur errors:\n")
    for row, reward in zip(rows, given, strict=True):
        if (kind := outcome(row, reward)) != "agrees":
            print(f"- {kind}: {row.env}, `{row.response}` for `{row.reference}`")


def print_speeds(rows: list[Row], graders: dict[str, Grader], runs: int) -> None:
    """Grades per second: ours by the path that a row takes, the others on all rows."""
    slow = [row for row in rows if needs_math_verify(row)]
    fast = [row for row in rows if not needs_math_verify(row)]
    print(f"\nLoad average of the machine: {os.getloadavg()[0]:.1f}.\n")
    print("| grader | path | n | grades/s by the clock | by the processor |\n|---|---|---|---|---|")
    print_speed("ours", "strings and exact numbers", fast, graders["ours"], runs)
    print_speed(
        "ours", "math-verify in its process", slow[:: max(1, len(slow) // TIMED)], ours, runs
    )
    alone = rows[:: max(1, len(rows) // TIMED)]
    print_speed("math-verify", "every kind, in a process", alone, graders["math-verify"], runs)
    print_speed("string", "every kind", rows, graders["string"], runs)


def needs_math_verify(row: Row) -> bool:
    """Whether strings and exact numbers leave the row to math-verify."""
    import envs
    from envs.grading.answers import last_box
    from envs.grading.expressions import Question

    env, answer = envs.NAMES[row.env], last_box(row.response)
    return answer is not None and isinstance(
        env.compare(answer, env.target(row.reference)), Question
    )


def print_speed(name: str, path: str, rows: list[Row], grade: Grader, runs: int) -> None:
    """One line: median and range over the runs; this process's time where all is done in it."""
    from envs.grading.latex import clean

    clock, processor = [], []
    for _ in range(runs):
        clean.cache_clear()
        start = time.perf_counter(), time.process_time()
        for row in rows:
            grade(row)
        clock.append(len(rows) / (time.perf_counter() - start[0]))
        processor.append(len(rows) / (time.process_time() - start[1]))
    shown = "-" if "process" in path else spread(processor)
    print(f"| {name} | {path} | {len(rows)} | {spread(clock)} | {shown} |")


def spread(speeds: list[float]) -> str:
    return f"{statistics.median(speeds):,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f})"


if __name__ == "__main__":
    sys.exit(main())
