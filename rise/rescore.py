"""Grade a saved run again, without asking any model: after a change of the grader, say.

    python -m rise.rescore log/rise --dry-run
    python -m rise.rescore log/rise

Reads   a run directory of workflow_eval.py or workflow_gen.py.
Writes  into it, unless --dry-run: rows.jsonl and <max_turns>_turns.json with today's verdicts,
        summary.json, and rescored.json with every change. Rows are kept as they were generated in
        rows.original.jsonl, and the changes are those since then, also when it is done again.

What the models were told does not change: where feedback followed the old grade (generation,
evaluation with an oracle), the report counts the episodes that would have gone another way.
"""

import argparse
import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import envs
from envs.base import Env
from envs.plugins import checksum
from fastchat.model.files import git_commit, versions
from fastchat.utils import Parser, json_or_none, new_file, write_json
from rise.dataset.text_keys import text_key
from rise.episodes.episode import Episode
from rise.episodes.feedback import knows_truth
from rise.episodes.journal import RunDir
from rise.episodes.rows import lines_at, naming, rows
from rise.metrics.evaluation import log_dir_of, open_run, read_config, with_sibling
from rise.metrics.tables import HEADLINE, headline_order
from rise.program.exits import DONE, run_program, usage_errors
from rise.runs.arguments import env_name
from rise.runs.config import DISTRIBUTIONS
from rise.runs.job import Job

SHOWN = 20
"""Changes that are printed where rescored.json has all of them."""
ORIGINAL = "rows.original.jsonl"
KEYS = ("verdict", "answer", "reward")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m rise.rescore", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--env",
        type=env_name,
        help="grade by this environment, which takes the place of the run's in config.json; "
        "default: the run's",
    )
    parser.add_argument(
        "--prompt_style",
        help="where the run's FILE.json has moved: it takes the old one's place in config.json",
    )
    parser.add_argument("--dry-run", action="store_true", help="list the changes, write nothing")
    return parser.parse_args(argv)


def regrade(episode: Episode, env: type[Env]) -> tuple[Episode, list[dict[str, Any]]]:
    """The episode with today's verdicts, and what changed in which attempts.

    Each change is {"task_id", "turn", "sample", "before", "after"}: turn and sample count from 1,
    before and after are {"verdict", "answer", "reward"}. Texts, feedback and the chosen sample
    stay.
    """
    changes, turns = [], []
    for t, turn in enumerate(episode.turns, start=1):
        grades = [env.judge(action, episode.answer) for action in turn.actions]
        before = zip(turn.verdicts, turn.answers, turn.rewards, strict=True)
        for i, (old, grade) in enumerate(zip(before, grades, strict=True), start=1):
            new = (grade.verdict, grade.answer, grade.reward)
            if old != new:
                place = {"task_id": episode.task_id, "turn": t, "sample": i}
                both = {
                    "before": dict(zip(KEYS, old, strict=True)),
                    "after": dict(zip(KEYS, new, strict=True)),
                }
                changes.append(place | both)
        turns.append(
            replace(
                turn,
                verdicts=[grade.verdict for grade in grades],
                answers=[grade.answer for grade in grades],
                rewards=[grade.reward for grade in grades],
            )
        )
    return replace(episode, turns=turns), changes


def originals(path: Path) -> Iterator[tuple[dict[str, Any], str, bool]]:
    """(row, line, whether the original file has it) of the rows as generated, in their order."""
    original = path / ORIGINAL
    found = rows(original) if original.exists() else ()
    kept = {_key(original, offset, row): offset for offset, _, row in found if row}
    for offset, line, row in rows(path / "rows.jsonl"):
        if row is None:
            continue
        place = kept.get(_key(path / "rows.jsonl", offset, row))
        if place is not None:
            (line,) = lines_at(original, [place])
            row = json.loads(line)
        yield row, line.decode("ascii").rstrip("\n") + "\n", place is not None


def rescored_rows(
    path: Path, env: type[Env], changes: list[dict[str, Any]]
) -> Iterator[tuple[str, str]]:
    """(new line, original line where none is kept yet, else ""); adds to `changes`."""
    from tqdm import tqdm

    kept = tqdm(originals(path), desc="grading", unit="episode", disable=None)
    for row, line, is_kept in kept:
        new = line
        if row["turn_history"].get("verdicts"):
            episode, found = regrade(Episode.from_dict(row), env)
            changes += found
            new = json.dumps(episode.to_dict()) + "\n"
        yield new, "" if is_kept else line


def write(path: Path, lines: Iterator[tuple[str, str]]) -> None:
    original, temporary = path / ORIGINAL, path / "rows.rescored.tmp"
    kept = path / f"{ORIGINAL}.tmp"
    try:
        with new_file(temporary, "b") as file, new_file(kept, "b") as backup:
            if original.exists():
                with open(original, "rb") as before:
                    shutil.copyfileobj(before, backup)
            for new, unkept in lines:
                file.write(new.encode("ascii"))
                backup.write(unkept.encode("ascii"))
        os.replace(kept, original)
        os.replace(temporary, path / "rows.jsonl")
    finally:
        for leftover in (temporary, kept):
            leftover.unlink(missing_ok=True)


def summarise(config: dict[str, Any], path: Path, changes: list[dict[str, Any]]) -> str:
    """Write the published log and the summary of the new rows; returns how the metrics moved."""
    job = Job.found(config)
    episodes: list[Episode] = []
    is_evaluation = config["stage"] == "eval"
    with job.start() as run:
        run.write_log(episodes.append if is_evaluation else None)
    results = job.tally.summary()
    stored = json_or_none(path / "summary.json") or {}
    if is_evaluation:
        evaluated = open_run(path, episodes=episodes)
        results = {"metrics": evaluated.metrics} | results
        with_sibling(evaluated)
    verdicts = sum(map(is_of_verdict, changes))
    note = {
        "changes": len(changes),
        "verdicts": verdicts,
        "versions": versions(DISTRIBUTIONS),
        "git_commit": git_commit(),
    }
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
    """What changed, as text; `told`: the models heard the old verdicts; `shown`: None lists all."""
    lines = [
        f"problem {change['task_id']}, turn {change['turn']}, sample {change['sample']}: "
        f"{_said(change['before'])} -> {_said(change['after'])}"
        for change in changes[:shown]
    ]
    if shown is not None and len(changes) > shown:
        lines.append(f"... and {len(changes) - shown} more in rescored.json")
    verdicts = [change for change in changes if is_of_verdict(change)]
    kinds = Counter(
        f"{change['before']['verdict']} -> {change['after']['verdict']}" for change in verdicts
    )
    counts = ", ".join(f"{kind}: {count}" for kind, count in kinds.most_common())
    more = len(changes) - len(verdicts)
    lines.append(
        f"{len(verdicts)} verdicts changed{f' ({counts})' if counts else ''}"
        + (f"; of {more} other attempts the answer is read otherwise" if more else "")
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


def is_of_verdict(change: dict[str, Any]) -> bool:
    return change["before"]["verdict"] != change["after"]["verdict"]


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    changes: list[dict[str, Any]] = []
    with usage_errors():
        config = read_config(args.run) | {"log_dir": str(log_dir_of(args.run))}
        env = envs.find(args.env or config["env"])
        if args.env:
            config |= {"env": args.env, "env_sha256": checksum(env)}
        if args.prompt_style:
            env.load_style(args.prompt_style)
            config["prompt_style"] = args.prompt_style
        lines = rescored_rows(args.run, env, changes)
        if args.dry_run:
            deque(lines, maxlen=0)
        else:
            with RunDir(config["log_dir"], config["max_turns"]) as run:
                run.lock()
                write(args.run, lines)
    told = config["stage"] == "gen" or knows_truth(config["feedback"])
    print(describe(changes, told, shown=None if args.dry_run else SHOWN))
    if not args.dry_run:
        print(summarise(config, args.run, changes))
    envs.shutdown()
    return DONE


def _key(path: Path, offset: int, row: dict[str, Any]) -> int:
    """What a row shares with the one that it was before it was rescored: its problem, its texts."""
    with naming(path, offset):
        episode = Episode.from_dict(row)
    texts = [turn.actions for turn in episode.turns]
    return text_key(json.dumps([episode.task_id, episode.error, texts]))


def _said(grade: dict[str, Any]) -> str:
    answer = "" if grade["answer"] is None else f" ({grade['answer'][:60]})"
    return f"{grade['verdict']}{answer}"


if __name__ == "__main__":
    run_program(main)
