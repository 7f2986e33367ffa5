"""What the scripts of an iterated run say of their own arguments, before anything begins.

Checked is what contradicts itself. What a server or the output of an earlier stage would have to
tell is left to the stage itself. It runs in a process of its own: the trainer's checks need torch.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable


def main() -> None:
    """Check the stages that standard input lists as [[name, program, arguments], ...].

    Raises:
        SystemExit: a script cannot read its arguments, or some contradict themselves; with words.
    """
    found: dict[str, list[str]] = {}
    for name, program, words in json.load(sys.stdin):
        # argparse says whose arguments it refuses.
        sys.argv[0] = program
        try:
            problems = CHECKS[name.rpartition("/")[2]](words)
        except ValueError as error:
            problems = [str(error)]
        for problem in problems:
            found.setdefault(f"{program}: error: {problem}", []).append(name)
    if found:
        sys.exit("\n".join(f"{said} ({', '.join(names)})" for said, names in found.items()))


def _generation(words: list[str]) -> list[str]:
    from workflow_gen import contradictions, parse_args

    args = parse_args(words)
    return contradictions(args) + _of_both(args, args.models)


def _evaluation(words: list[str]) -> list[str]:
    from workflow_eval import contradictions, parse_args

    args = parse_args(words)
    return contradictions(args) + _of_both(args, [args.model])


def _of_both(args: argparse.Namespace, models: list[str]) -> list[str]:
    """What is wrong with the arguments that both share; the problems may still be fetched."""
    from rise.policies.names import OPENAI_NAME, unavailable_sampling
    from rise.runs.arguments import per_turn, problems_with

    found = [said for flag, said in problems_with(args, models) if flag != "--data_path"]
    if not found:
        models = per_turn(models, args.max_turns)
        kinds = {name: "openai" if OPENAI_NAME.fullmatch(name) else "" for name in models}
        sampling = {"models": models, "top_p": args.top_p}
        if args.temperature is not None:
            sampling["temperature"] = per_turn(args.temperature, args.max_turns)
        found = unavailable_sampling(kinds, sampling)
    return found + _prompt_problems(args)


def _conversion(words: list[str]) -> list[str]:
    from rise.dataset.arguments import problems_of
    from workflow_convert import parse_args

    args = parse_args(words)
    if args.to != "dpo":
        # The file to match may be made by an earlier stage; for dpo none may be given.
        args.match_tokens = None
    return problems_of(args) + _prompt_problems(args)


def _prompt_problems(args: argparse.Namespace) -> list[str]:
    """What is wrong with the files of an environment or of a prompt style."""
    from rise.dataset.sources import load_prompts

    try:
        load_prompts(args.env, args.prompt_style)
    except ValueError as error:
        return [str(error)]
    return []


def _training(words: list[str]) -> list[str]:
    from fastchat.train import launch

    launch.name_accelerator()
    launch.quiet()
    from fastchat.train.arguments import parse
    from fastchat.train.checks import contradictions

    return contradictions(parse(words))


CHECKS: dict[str, Callable[[list[str]], list[str]]] = {
    "gen": _generation,
    "convert": _conversion,
    "train": _training,
    "eval": _evaluation,
}
"""Last part of a stage's name -> what its script says."""
