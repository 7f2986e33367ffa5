"""Grade a saved run again, without asking any model: after a change of the grader, say.

    python -m rise.rescore log/rise --dry-run
    python -m rise.rescore log/rise

Reads   a run directory of workflow_eval.py or workflow_gen.py.
Writes  into it, unless --dry-run: rows.jsonl and <max_turns>_turns.json with today's verdicts,
        summary.json, and rescored.json with every change. The first rescoring keeps the rows as
        they were in rows.original.jsonl.

What the models were told does not change: where feedback followed the old grade (generation,
evaluation with an oracle), the report counts the episodes that would have gone another way.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rise.configuration import git_commit, versions
from rise.endings import DONE, run_errors, run_program, usage_errors
from rise.episode import Episode
from rise.evaluated import log_dir_of, open_run, read_config, with_sibling
from rise.feedback import knows_truth
from rise.job import Job
from rise.parser import Parser
from rise.rows import rows
from rise.table import HEADLINE, headline_order
from rise.trajectory import read_json, write_json

if TYPE_CHECKING:
    from envs.base import Env

SHOWN = 20
"""Changes that are printed where rescored.json has all of them."""
ORIGINAL = "rows.original.jsonl"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog="python -m rise.rescore", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--dry-run", action="store_true", help="list the changes, write nothing")
    return parser.parse_args(argv)


def regrade(episode: Episode, env: type[Env]) -> tuple[Episode, list[dict[str, Any]]]:
    """The episode with today's verdicts, and what changed.

    Texts, feedback and the choice among the samples stay as they were.

    Returns:
        The episode, and one {"task_id", "turn", "sample", "before", "after"} per changed attempt,
        turn and sample counted from 1, before and after {"verdict", "answer", "reward"}.
    """
    changes, turns = [], []
    for t, turn in enumerate(episode.turns, start=1):
        grades = [env.judge(action, episode.answer) for action in turn.actions]
        before = zip(turn.verdicts, turn.answers, turn.rewards, strict=True)
        for i, (old, grade) in enumerate(zip(before, grades, strict=True), start=1):
            new = (grade.verdict, grade.answer, grade.reward)
            if old != new:
                keys = ("verdict", "answer", "reward")
                changes.append(
                    {
                        "task_id": episode.task_id,
                        "turn": t,
                        "sample": i,
                        "before": dict(zip(keys, old, strict=True)),
                        "after": dict(zip(keys, new, strict=True)),
                    }
                )
        turns.append(
            replace(
                turn,
                verdicts=[grade.verdict for grade in grades],
                answers=[grade.answer for grade in grades],
                rewards=[grade.reward for grade in grades],
            )
        )
    return replace(episode, turns=turns), changes


def rescored_rows(path: Path, env: type[Env], changes: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of a new rows.jsonl; adds to `changes` what is different in them."""
    from tqdm import tqdm

    journal = rows(path / "rows.jsonl")
    for _, line, row in tqdm(journal, desc="grading", unit="episode", disable=None):
        if row is None:
            continue
        if not row["turn_history"].get("verdicts"):
            yield line.decode("ascii")
            continue
        episode, found = regrade(Episode.from_dict(row), env)
        changes += found
        yield json.dumps(episode.to_dict()) + "\n"


def write(path: Path, lines: Iterator[str]) -> None:
    """Replace the rows; a reader or a killed process finds the old ones or the new ones."""
    temporary = path / "rows.rescored.tmp"
    with open(temporary, "w", encoding="ascii") as file:
        file.writelines(lines)
    if not (path / ORIGINAL).exists():
        kept = path / f"{ORIGINAL}.tmp"
        shutil.copyfile(path / "rows.jsonl", kept)
        os.replace(kept, path / ORIGINAL)
    os.replace(temporary, path / "rows.jsonl")


def summarise(job: Job, path: Path, changes: list[dict[str, Any]]) -> str:
    """Write the published log and the summary of the new rows; returns how the metrics moved."""
    with job.open_run() as run:
        run.write_log()
        results = job.tally(run).summary()
    stored = read_json(path / "summary.json") if (path / "summary.json").exists() else {}
    if job.config["stage"] == "eval":
        evaluated = open_run(path)
        results = {"metrics": evaluated.metrics} | results
        with_sibling(evaluated)
    note = {"changes": len(changes), "versions": versions(), "git_commit": git_commit()}
    write_json(path / "summary.json", stored | results | {"rescored": note})
    write_json(path / "rescored.json", changes)
    return moves(stored.get("metrics", {}), results.get("metrics", {}))


def moves(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The headline rates before and after, in percent.

    >>> moves({"m1@t1": {"value": 0.5}}, {"m1@t1": {"value": 0.52}, "feedback": "none"})
    'm1@t1: 50.0 -> 52.0 %'
    """
    names = sorted(filter(HEADLINE.fullmatch, before.keys() & after.keys()), key=headline_order)
    return "\n".join(
        f"{name}: {100 * before[name]['value']:.1f} -> {100 * after[name]['value']:.1f} %"
        for name in names
    )


def describe(changes: list[dict[str, Any]], told: bool, shown: int | None = SHOWN) -> str:
    """What changed, as text.

    Args:
        changes: see `regrade`.
        told: whether the models were told the old verdicts.
        shown: changes that are listed; the others are said to be in rescored.json. None is all.
    """
    lines = [
        f"problem {change['task_id']}, turn {change['turn']}, sample {change['sample']}: "
        f"{_said(change['before'])} -> {_said(change['after'])}"
        for change in changes[:shown]
    ]
    if shown is not None and len(changes) > shown:
        lines.append(f"... and {len(changes) - shown} more in rescored.json")
    kinds = Counter(
        f"{change['before']['verdict']} -> {change['after']['verdict']}" for change in changes
    )
    counts = ", ".join(f"{kind}: {count}" for kind, count in kinds.most_common())
    lines.append(
        f"{len(changes)} attempts are graded differently{f' ({counts})' if counts else ''}"
    )
    turned = {
        change["task_id"]
        for change in changes
        if (change["before"]["verdict"] == "right") != (change["after"]["verdict"] == "right")
    }
    if told and turned:
        lines.append(
            f"{len(turned)} episodes went on by the old grade: what was asked there is not what "
            "would be asked today; generate those problems again for data of their own"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Grade again and report; returns the exit code."""
    import envs

    args = parse_args(argv)
    changes: list[dict[str, Any]] = []
    with usage_errors():
        config = read_config(args.run) | {"log_dir": str(log_dir_of(args.run))}
        env = envs.find(config["env"])
        job = Job(env=None, config=config, kinds={}, finished=0)
        lines = rescored_rows(args.run, env, changes)
        if args.dry_run:
            deque(lines, maxlen=0)
        else:
            run = job.open_run()
    if not args.dry_run:
        with run, run_errors(job, run):
            write(args.run, lines)
    told = config["stage"] == "gen" or knows_truth(config["feedback"])
    print(describe(changes, told, shown=None if args.dry_run else SHOWN))
    if not args.dry_run:
        print(summarise(job, args.run, changes))
    envs.shutdown()
    return DONE


def _said(grade: dict[str, Any]) -> str:
    answer = "" if grade["answer"] is None else f" ({grade['answer'][:60]})"
    return f"{grade['verdict']}{answer}"


if __name__ == "__main__":
    run_program(main)
