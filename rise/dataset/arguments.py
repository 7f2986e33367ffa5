"""The arguments of workflow_convert.py that say what is made, and their checks."""

import argparse
from pathlib import Path

from fastchat.utils import similar
from rise.dataset.rules import CRITERIA, FORMATS
from rise.dataset.weights import WEIGHTINGS, weight
from rise.dataset.writer import trained_tokens
from rise.program.exits import collecting
from rise.tracking import tracker

TARGETS = {"sft": "weighted rows", "dpo": "preference pairs", "pair_sft": "pairs"}
"""What --to makes, in words."""
TEMPERATURE, MAX_PAIRS = 0.4, 4
NOT_COMPARED = {*("filepath", "output", "overwrite", "dry_run", "check"), *tracker.KEYS}
"""Arguments that do not change the data set; of the logs the contents are compared."""


def add_rules(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what is kept, and how much it counts").add_argument
    add(
        "--criteria",
        choices=CRITERIA,
        default="all",
        help="all turns; better: reward above the previous turn's; best: no earlier reward is "
        "higher; success: right. Turn 1 is always kept, except by success; default all",
    )
    add(
        "--drop_truncated",
        action="store_true",
        help="drop answers that the limit of new tokens cut; default: they are trained as they "
        "were sampled, without a stop token",
    )
    add("--only_success", action="store_true", help="drop episodes without a right answer")
    add("--remove_duplication", action="store_true", help="drop empty and repeated attempts")
    add(
        "--remove_near_duplicates",
        type=float,
        metavar="SHARE",
        help="drop a row that nearly repeats an earlier one of any log: the same opening and "
        "reward, and each attempt has SHARE (above 0, up to 1; try 0.8) of its pieces of four "
        "words in common with the other's; default: keep them",
    )
    add(
        "--weighting",
        choices=WEIGHTINGS,
        default="exp",
        help="exp: exp(r/tau); advantage: exp((r - mean r)/tau); centered: exp(r/tau) - mean "
        "exp(r/tau), may be negative; none: 1. Means over all attempts on the prompt; default exp",
    )
    add(
        "--temperature",
        type=float,
        default=TEMPERATURE,
        help=f"tau in the weight, above 0; default {TEMPERATURE}",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("output").add_argument
    add("--output", required=True, type=Path, help="file to write")
    add(
        "--to",
        choices=TARGETS,
        default="sft",
        help="sft: weighted rows; dpo: preference pairs, JSON lines with prompt, chosen and "
        "rejected, of the answers that were given in one state (several samples per turn, or "
        "several logs) and have different rewards; "
        "pair_sft: rows of weight 1, a right answer after any wrong attempt at its question; "
        "default sft",
    )
    add(
        "--max_pairs",
        type=int,
        default=MAX_PAIRS,
        help=f"pairs of one state (dpo) or question (pair_sft) at most; default {MAX_PAIRS}",
    )
    add(
        "--match_tokens",
        type=Path,
        metavar="FILE",
        help="write the rows so often that they have as many trained tokens as FILE, another "
        "output of this script, for a baseline that is trained as long; needs --model_path, "
        "with which FILE must have been written too; "
        "default: each row once",
    )
    add(
        "--format",
        choices=FORMATS,
        default="fastchat",
        help="fastchat: a JSON list for train_mem.py; messages: JSON lines with role and content, "
        "for other trainers; default fastchat",
    )
    add(
        "--shuffle",
        type=int,
        nargs="?",
        const=0,
        metavar="SEED",
        help="put the rows in random order, drawn from SEED (0); default: as in the logs",
    )
    add("--seed", type=int, help=argparse.SUPPRESS)  # of --shuffle, as it was given before
    add("--model_path", help="checkpoint whose tokens the report counts; default: not counted")
    add("--overwrite", action="store_true", help="replace an output made with other settings")
    add("--dry-run", "--dry_run", action="store_true", help="report, show one row, write nothing")
    add(
        "--check",
        action="store_true",
        help="say what contradicts itself, exit with 0 or 2; logs may still be missing",
    )
    tracker.add_arguments(parser)


def problems_of(args: argparse.Namespace) -> list[str]:
    problems: list[str] = []
    model = args.model_path or ""
    beside = model and similar(model)
    is_path = beside or model.startswith(("/", ".", "~"))
    if is_path and not Path(model).is_dir() and not args.check:
        problems.append(f"--model_path {model}: there is no such directory{beside}")
    for name in ("context_window", "max_pairs"):
        value = getattr(args, name)
        if value is not None and value < 1:
            problems.append(f"--{name} is {value}: give 1 or more")
    share = args.remove_near_duplicates
    if share is not None and not 0 < share <= 1:
        problems.append(f"--remove_near_duplicates is {share}: give a share above 0, up to 1")
    if args.output.is_dir():
        problems.append(f"--output {args.output} is a directory: give a file")
    problems += _without_meaning(args)
    if args.match_tokens is not None and not (args.check and not args.match_tokens.exists()):
        with collecting(problems):
            trained_tokens(args.match_tokens, args.model_path)
    with collecting(problems):
        weight(1, 0, args.weighting, args.temperature)
    return problems


def _without_meaning(args: argparse.Namespace) -> list[str]:
    of_rules = {
        "--criteria": args.criteria != "all",
        "--drop_truncated": args.drop_truncated,
        "--only_success": args.only_success,
        "--weighting": args.weighting != "exp",
        "--temperature": args.temperature != TEMPERATURE,
        "--remove_duplication": args.remove_duplication,
    }
    of_rows = {
        "--remove_near_duplicates": args.remove_near_duplicates is not None,
        "--match_tokens": args.match_tokens is not None,
        "--model_path": args.model_path is not None,
        "--format": args.format != "fastchat",
    }
    of_turns = {
        "--context_window": args.context_window is not None,
        "--correct_to_correct": args.correct_to_correct is not None,
    }
    of_pairs = {"--max_pairs": args.max_pairs != MAX_PAIRS}
    idle = {"sft": of_pairs, "dpo": of_rules | of_rows, "pair_sft": of_rules | of_turns}
    return [
        f"{flag} says nothing about {TARGETS[args.to]}: leave it out with --to {args.to}"
        for flag, is_given in idle[args.to].items()
        if is_given
    ]
