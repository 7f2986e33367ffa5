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
import json
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from bench import ROOT, parser, spread

import envs
from envs.grading.answers import last_box

ROWS = [ROOT / "tests/support/grading" / name for name in ("gsm8k.jsonl", "math.jsonl")]
TIMED = 200
"""Rows at least that a slow grader is timed on, taken at equal distances."""
LABELS = ("right", "wrong", "no_answer")
TIME_LIMIT = 15.0
"""Seconds after which math-verify alone is killed; its own limits are 5 s for each of its steps."""


@dataclass(frozen=True)
class Row:
    """One labelled response."""

    env: str
    response: str
    reference: str
    label: str
    category: str


Grader = Callable[[Row], int]
"""From a row to its reward: 1 right, 0 wrong, -1 no answer (0 in MATH)."""


def read_row(line: str) -> Row:
    try:
        row = Row(**json.loads(line))
    except TypeError as error:
        raise ValueError(f"a row must have the keys of {Row.__annotations__}: {line!r}") from error
    if row.label not in LABELS:
        raise ValueError(f"label {row.label!r} is not one of {', '.join(LABELS)}: {line!r}")
    return row


def same_string(row: Row) -> int:
    """Compare the last box with the reference's answer, character by character."""
    answer = last_box(row.response)
    return reward_of(row.env, "no_answer") if answer is None else int(answer == stated(row))


def ours(row: Row) -> int:
    return envs.grade(row.env, row.response, row.reference)


class MathVerify:
    """math-verify alone, in a process that is killed when it does not answer."""

    def __init__(self):
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve_math_verify, args=(theirs,), daemon=True)
        self.process.start()
        self.pipe.recv()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()

    def grade(self, row: Row) -> int:
        reference = stated(row) if row.env == "gsm8k" else row.reference
        self.pipe.send((row.response, reference))
        if not self.pipe.poll(TIME_LIMIT):
            self.stop()
            self.start()
            return 0
        verdict = self.pipe.recv()
        return 1 if verdict == "right" else reward_of(row.env, verdict)


def serve_math_verify(pipe: Connection) -> None:
    """Answer (response, reference) with right, wrong or no_answer until the pipe is closed."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    pipe.send("ready")
    while True:
        try:
            response, reference = pipe.recv()
        except (EOFError, OSError):  # the benchmark was stopped
            return
        found, wanted = parse(response), parse(reference)
        verdict = "right" if found and verify(wanted, found) else "wrong"
        pipe.send(verdict if found else "no_answer")


def stated(row: Row) -> str:
    if row.env == "gsm8k":
        return row.reference.rpartition("####")[2].strip()
    return last_box(row.reference) or ""


def reward_of(env: str, verdict: str) -> int:
    return envs.NAMES[env].rewards[verdict]


def parse_args() -> argparse.Namespace:
    found = parser(__doc__)
    add = found.add_argument
    add("--rows", nargs="+", type=Path, default=ROWS, help="files of labelled rows; default: ours")
    add("--runs", type=int, default=3, help="timed runs, for median and range; default 3")
    args = found.parse_args()
    if args.runs < 1:
        found.error(f"--runs is {args.runs}: use 1 or more")
    for path in args.rows:
        if not path.is_file():
            found.error(f"--rows: no file {path}")
    return args


def main() -> int:
    args = parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
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


def print_totals(rows: list[Row], rewards: dict[str, list[int]]) -> None:
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
    shown = "-" if "process" in path else spread(processor, ",.0f")
    print(f"| {name} | {path} | {len(rows)} | {spread(clock, ',.0f')} | {shown} |")


if __name__ == "__main__":
    sys.exit(main())
