"""What an iterated run will ask for, and whether its commands are understood, before it begins."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rise.iteration_plan import TRAINER, Stage, stage_environment
from rise.policies.names import OPENAI_NAME, STUDENT, TEACHER
from rise.runs.arguments import add_common, per_turn
from rise.stage_process import ROOT

SCRIPTS = {
    "gen": "workflow_gen.py",
    "convert": "workflow_convert.py",
    "train": TRAINER,
    "eval": "workflow_eval.py",
}
"""Step -> script in the command."""
CHECK = """
import sys
sys.path[:0] = {paths!r}
from rise.stage_checks import main
main()
"""
"""`rise.stage_checks` in a process of its own, wherever this one was started."""


def refused_commands(stages: Sequence[Stage]) -> list[str]:
    """What the scripts say against their arguments, which would else be found hours later."""
    calls = []
    for stage in stages:
        program = SCRIPTS[stage.step]
        place = next(k for k, word in enumerate(stage.command) if word.endswith(program))
        calls.append([stage.name, program, stage.command[place + 1 :]])
    done = subprocess.run(
        [sys.executable, "-c", CHECK.format(paths=[str(ROOT), str(ROOT / "FastChat")])],
        input=json.dumps(calls),
        text=True,
        env=stage_environment(stages[0]),
        capture_output=True,
        check=False,
    )
    return done.stderr.splitlines() if done.returncode else []


def size_of(stage: Stage) -> str:
    """What a stage that asks models will ask for at most; empty for the others.

    Counted are the answers and their limits of new tokens; `workflow_gen.py --dry-run` also counts
    the tokens of the prompts.
    """
    if stage.step not in ("gen", "eval"):
        return ""
    if not Path(stage.inputs["problems"]).is_file():
        return f"{stage.inputs['problems']} is missing, so its size is not known"
    parser = argparse.ArgumentParser(add_help=False)
    add_common(parser)
    args, _ = parser.parse_known_args(stage.command[2:])
    with open(args.data_path, "rb") as file:
        problems = sum(1 for line in file if line.strip())
    problems = min(problems, args.limit or problems)
    models = _models(stage, args.max_turns)
    samples = per_turn(args.num_of_samples, args.max_turns)
    limits = per_turn(args.max_new_tokens, args.max_turns) if args.max_new_tokens else models
    answers = problems * sum(samples)
    tokens = problems * sum(map(int.__mul__, samples, limits))
    return f"{problems:,} problems, at most {answers:,} answers and {tokens:,} new tokens"


def _models(stage: Stage, turns: int) -> list[int]:
    """The published limit of new tokens of whoever answers each turn."""
    names = [stage.inputs[role] for role in ("student", "expert", "model") if role in stage.inputs]
    openai = [OPENAI_NAME.fullmatch(name) is not None for name in per_turn(names, turns)]
    return [(TEACHER if each else STUDENT)["max_new_tokens"] for each in openai]
