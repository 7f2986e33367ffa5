"""Who answers in an iterated run, and from which problems: looked at before the first stage.

The stages would find it as well, but the one that asks the expert begins after hours.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rise.iteration_plan import Stage
from rise.policies import names as choice
from rise.policies.keys import OPENAI_KEY, find_key
from rise.runs.arguments import DEFAULT_CONTROLLER, controller_url

ASKED = ("model", "student", "expert")
"""Roles of a stage's inputs that are models."""


def unusable(args: argparse.Namespace, stages: Sequence[Stage]) -> list[str]:
    """What is wrong with the models and the files of problems.

    A dry run does not wait for the hub, and what may still be fetched, a file of problems or a key,
    may be missing.

    Args:
        args: of `rise.iterate`.
        stages: those that are not done: the key of an expert who has answered is needed no longer.
    """
    return _models(args, stages) + _problem_files(args, stages)


def missing_key(args: argparse.Namespace) -> str | None:
    """What the expert needs and has not; None where it needs no key, or has one."""
    if not choice.OPENAI_NAME.fullmatch(args.expert) or find_key(OPENAI_KEY):
        return None
    return f"{args.expert} needs a key: set {OPENAI_KEY}, or write it to keys.cfg"


def _models(args: argparse.Namespace, stages: Sequence[Stage]) -> list[str]:
    """A model that a stage makes is none yet; the base and the expert must be there."""
    needed = {stage.inputs[role] for stage in stages for role in ASKED if role in stage.inputs}
    try:
        names = [name for name in (args.model, args.expert) if name in needed]
        if args.dry_run:
            names = [name for name in names if not name.startswith("hf:")]
            names = [name for name in names if name != args.expert or not missing_key(args)]
        if names:
            choice.decide(names, controller_url(args.controller_address or DEFAULT_CONTROLLER))
    except ValueError as error:
        return str(error).splitlines()
    return []


def _problem_files(args: argparse.Namespace, stages: Sequence[Stage]) -> list[str]:
    """Each file is read whole, as the environment that its stage names."""
    import envs

    found = []
    asking = [stage for stage in stages if stage.step in ("gen", "eval")]
    for env, path in dict.fromkeys(map(_problems_of, asking)):
        if args.dry_run and not Path(path).is_file():
            continue
        try:
            envs.make(env, path)
        except (ValueError, OSError) as error:
            found.append(str(error))
    # Some environments have started processes that grade.
    envs.shutdown()
    return found


def _problems_of(stage: Stage) -> tuple[str, str]:
    """The environment and the file of a stage: what is passed on may name another environment."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--env", nargs="?")
    parser.add_argument("--data_path")
    args, _ = parser.parse_known_args(stage.command)
    return args.env or "", args.data_path
