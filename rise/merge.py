"""Join the shards of a run into the run directory that one job would have written.

    python -m rise.merge log/shard-1 log/shard-2 log/shard-3 -o log/gsm8k

Reads   run directories of workflow_gen.py or workflow_eval.py, made with --shard I/N.
Writes  -o DIR: config.json, rows.jsonl, <max_turns>_turns.json, summary.json, for
        workflow_convert.py and every other tool that takes a run.

Every problem must be finished in exactly one of the runs, and they must agree in everything but
the shard. One episode is in memory at a time, only the metrics of an evaluation are computed over
all. A merge that was cut short goes on with the same command.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastchat.utils import Parser, json_or_none
from rise.episodes.episode import Episode, is_owed
from rise.episodes.journal import differences
from rise.episodes.rows import episodes_at, finished, rows
from rise.metrics.evaluation import open_run, read_config, with_sibling
from rise.metrics.tables import format_table
from rise.program.exits import DONE, run_program, usage_errors
from rise.runs.job import Job
from rise.runs.stage import run_errors

SHOWN = 5
"""Task ids that an error names."""

Where = dict[int, tuple[Path, int]]
"""Task id -> the run that has finished it, and the offset in its rows.jsonl."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m rise.merge", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("-o", "--output", required=True, type=Path, help="run directory to write")
    return parser.parse_args(argv)


def find_episodes(runs: Sequence[Path]) -> tuple[dict[str, Any], Where]:
    """The common configuration of the runs, and where every episode is."""
    first = read_config(runs[0])
    where: Where = {}
    for path in runs:
        changes = differences(first, read_config(path), but={"shard"})
        if changes:
            raise ValueError(
                f"{runs[0]} and {path} are runs of different configurations ({changes})"
            )
        offsets = finished(path / "rows.jsonl")
        if both := sorted(offsets.keys() & where.keys()):
            others = sorted({str(where[task_id][0]) for task_id in both})
            raise ValueError(
                f"{path} and {', '.join(others)} overlap: both have {_named(both)}; give every "
                "shard once"
            )
        where.update((task_id, (path, offset)) for task_id, offset in offsets.items())
    missing = [task_id for task_id in range(first["problems"]) if task_id not in where]
    if missing:
        have = ", ".join(f"{path} (shard {read_config(path).get('shard')})" for path in runs)
        raise ValueError(
            f"{_named(missing)} of {first['problems']} are in none of {have}: give the missing "
            "shards, or finish the runs with the commands that began them"
        )
    return first, where


def write(job: Job, where: Where) -> None:
    run = job.run
    if not run.done:
        _copy_failed(sorted({path for path, _ in where.values()}), job)
    for task_id in sorted(where.keys() - run.done):
        path, offset = where[task_id]
        for episode in episodes_at(path / "rows.jsonl", [offset]):
            run.append(episode)
            job.tally.add_earlier(episode)
    if job.config["stage"] == "gen":
        run.write_log()
        job.write_summary(job.tally.summary())
        return
    episodes: list[Episode] = []
    run.write_log(episodes.append)
    evaluated = open_run(run.path, episodes=episodes)
    print(format_table(evaluated.metrics))
    job.write_summary({"metrics": evaluated.metrics} | job.tally.summary())
    with_sibling(evaluated)


def _copy_failed(paths: Sequence[Path], job: Job) -> None:
    """Copy the failed attempts, which were paid for, but for those that a killed merge copied."""
    run = job.run
    there = Counter(json.dumps(episode.to_dict()) for episode in _failed(run.path))
    for path in paths:
        for episode in _failed(path):
            if there[text := json.dumps(episode.to_dict())]:
                there[text] -= 1
            else:
                run.append(episode)
                job.tally.add_earlier(episode)


def _failed(path: Path) -> Iterator[Episode]:
    for _, _, row in rows(path / "rows.jsonl"):
        if row and is_owed(row.get("error")):
            yield Episode.from_dict(row)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with usage_errors():
        config, where = find_episodes(args.runs)
        config |= {"shard": None, "log_dir": str(args.output), "command": sys.argv}
        job = Job.found(config)
        job.run.check(config)
        summaries = [json_or_none(path / "summary.json") or {} for path in args.runs]
        job.seconds = sum(summary.get("wall_s", 0.0) for summary in summaries)
        job.start()
    with job.run, run_errors(job):
        write(job, where)
    print(f"{job.state()}, from {len(args.runs)} runs; log: {job.run.log_path}")
    return DONE


def _named(task_ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, task_ids[:SHOWN]))
    return f"{len(task_ids)} problems ({shown}{', ...' if len(task_ids) > SHOWN else ''})"


if __name__ == "__main__":
    run_program(main)
