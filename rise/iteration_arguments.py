"""The arguments of `rise.iterate`: flags, and a JSON file with the same names."""

from __future__ import annotations

import argparse
import difflib
import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from rise.iteration_owned import overridden, saves_adapter
from rise.iteration_plan import SELF_SAMPLES, search_path
from rise.policies.names import FUNCTION_NAME
from rise.program.parser import Parser
from rise.runs.arguments import env_help, env_name

CONVERT_ARGS = "--criteria all --remove_duplication --shuffle"
REQUIRED = ("model", "env", "train_data", "test_data", "expert", "out")
WORDS = ("gen_args", "boost_args", "convert_args", "train_args", "eval_args")
"""Arguments that are passed on: a string, a list of words or, in a file, {flag: value}."""


def parse(argv: list[str] | None, description: str) -> argparse.Namespace:
    """The arguments of the command line over those of the file.

    Raises:
        ValueError: everything that is wrong with them, in one message.
    """
    parser = make_parser(description)
    words = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(words)
    if args.config is not None:
        args = parser.parse_args(read_config(args.config, parser) + words)
    problems = _problems(args)
    if problems:
        raise ValueError("\n".join(problems))
    args.out = Path(args.out)
    args.launcher = shlex.split(args.launcher)
    for name in WORDS:
        value = getattr(args, name)
        setattr(args, name, None if value is None else shlex.split(value))
    return args


def make_parser(description: str) -> argparse.ArgumentParser:
    """The parser; what is required may stand in the file, so that it is checked later."""
    parser = Parser(prog="python -m rise.iterate", description=description)
    parser.add_argument(
        "--config", help="JSON file with these arguments by name; the command line goes first"
    )
    _add_what(parser.add_argument_group("what is improved, and on what").add_argument)
    _add_how(parser.add_argument_group("how").add_argument)
    _add_passed_on(parser.add_argument_group("passed on to the stages").add_argument)
    return parser


def _add_what(add) -> None:
    add("--model", help="base model: a directory with a checkpoint, or hf:ORG/NAME")
    add("--env", type=env_name, help=env_help())
    add("--train_data", help="problems to generate on, one JSON object per line")
    add("--test_data", help="problems to evaluate on")
    add("--out", help="directory for everything; the same command goes on there")
    add(
        "--expert",
        help="who answers turn 2, named as for workflow_gen.py; self: the student, best of "
        "--expert_samples",
    )
    add(
        "--expert_samples",
        type=int,
        help=f"answers at turn 2, of which the best counts; default 1, {SELF_SAMPLES} for self",
    )


def _add_how(add) -> None:
    add("--iterations", type=int, default=1, help="how often to generate and train; default 1")
    add(
        "--boost",
        default="",
        help="supervised fine-tuning before iteration 1: expert (on its right answers at turn 1) "
        "or FILE.json with rows for train_mem.py; default none",
    )
    add(
        "--pool",
        choices=["all", "last"],
        default="all",
        help="an iteration is trained on the attempts of all iterations so far, or of the last "
        "one; default all",
    )
    add(
        "--train_from",
        choices=["base", "last"],
        default="base",
        help="base: each iteration trains the base model (the boosted one, if any); last: it goes "
        "on with the model of the iteration before; default base",
    )
    add(
        "--seed",
        type=int,
        default=0,
        help="of every stage; iteration i generates with seed + i - 1; default 0",
    )
    add(
        "--launcher",
        default="python",
        help='starts the trainer: python, "torchrun --nproc_per_node 8", "deepspeed --num_gpus 8"; '
        "default python",
    )
    add(
        "--controller_address",
        help="URL or port of a FastChat controller that runs already; default: the stages serve "
        "checkpoints themselves",
    )
    add(
        "--wandb_project",
        default="",
        help="project at Weights & Biases, where all stages form one group; default: not used",
    )
    add("--dry-run", "--dry_run", action="store_true", help="show the stages and their size, exit")


def _add_passed_on(add) -> None:
    add("--gen_args", default="", help="arguments of workflow_gen.py, in one string")
    add("--boost_args", help="of the generation for --boost expert; default those of --gen_args")
    add(
        "--convert_args",
        default=CONVERT_ARGS,
        help=f'of workflow_convert.py; default "{CONVERT_ARGS}"',
    )
    add("--train_args", default="", help="of train_mem.py")
    add("--eval_args", default="", help="of workflow_eval.py")


def read_config(file: str, parser: argparse.ArgumentParser) -> list[str]:
    """The arguments in a JSON file as words of a command line.

    Raises:
        ValueError: it is no JSON object, or has a name that no argument has.
    """
    try:
        config = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"--config {file} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"--config {file} must hold a JSON object: {{name: value, ...}}")
    known = {action.dest for action in parser._actions} - {"help", "config", "dry_run"}
    problems = []
    for name in sorted(config.keys() - known):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
        problems.append(f"--config {file} has the unknown name {name!r}: {hint}")
    # Whoever writes null or false wants nothing of it: there is no switch among them.
    given = {n: v for n, v in config.items() if v is not None and v is not False}
    problems += [
        f"--config {file}: {name} is {json.dumps(value)}: give {_form(name)}"
        for name, value in given.items()
        if name in known and (value is True or not isinstance(value, _types(name)))
    ]
    if problems:
        raise ValueError("\n".join(problems))
    return [
        f"--{name}={shlex.join(words_of(value, name)) if name in WORDS else value}"
        for name, value in given.items()
    ]


def _types(name: str) -> tuple[type, ...]:
    return (str, list, dict) if name in WORDS else (str, int, float)


def _form(name: str) -> str:
    return "a string, a list or an object" if name in WORDS else "a string or a number"


def words_of(value: str | list[Any] | dict[str, Any], name: str) -> list[str]:
    """What one argument of `WORDS` passes on, as words.

    >>> words_of("--learning_rate 1e-5", "train_args"), words_of(["--limit", 8], "gen_args")
    (['--learning_rate', '1e-5'], ['--limit', '8'])
    >>> words_of({"shuffle": True, "temperature": 0.4, "only_success": False}, "convert_args")
    ['--shuffle', '--temperature', '0.4']
    >>> words_of({"correct_to_correct": False}, "convert_args")
    ['--no-correct_to_correct']
    >>> words_of({"dataloader_pin_memory": False}, "train_args")
    ['--dataloader_pin_memory', 'False']
    >>> words_of({"lr_scheduler_kwargs": {"num_cycles": 2}, "max_steps": None}, "train_args")
    ['--lr_scheduler_kwargs', '{"num_cycles": 2}']
    """
    if isinstance(value, str):
        return shlex.split(value)
    if isinstance(value, list):
        return [_word(each) for each in value]
    words = []
    for flag, setting in value.items():
        if setting is None:
            continue
        if setting is False:
            words += _switched_off(flag, name)
            continue
        words.append(f"--{flag}")
        if setting is not True:
            words += [_word(each) for each in (setting if isinstance(setting, list) else [setting])]
    return words


def _word(value: Any) -> str:
    """A value as one word: the trainer reads objects as JSON."""
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _switched_off(flag: str, name: str) -> list[str]:
    """The words for a flag that is false; most switches are off where they are not given."""
    if name == "train_args":
        return [f"--{flag}", "False"]
    negatable = name == "convert_args" and flag == "correct_to_correct"
    return [f"--no-{flag}"] if negatable else []


def _problems(args: argparse.Namespace) -> list[str]:
    problems = [f"--{name} is missing" for name in REQUIRED if not getattr(args, name)]
    if args.iterations < 1:
        problems.append(f"--iterations is {args.iterations}: give 1 or more")
    if args.expert_samples is not None and args.expert_samples < 1:
        problems.append(f"--expert_samples is {args.expert_samples}: give 1 or more")
    if args.out and Path(args.out).is_file():
        problems.append(f"--out {args.out} is a file: give a directory")
    # A base that is served under a name only cannot be trained.
    if args.model and (FUNCTION_NAME.fullmatch(args.model) or "@" in args.model):
        problems.append(
            f"--model {args.model} cannot be trained: give a directory with a checkpoint, or "
            "hf:ORG/NAME"
        )
    files = {"--boost": "" if args.boost in ("", "expert") else args.boost}
    if not args.dry_run:
        files |= {"--train_data": args.train_data, "--test_data": args.test_data}
    for flag, path in files.items():
        if path and not Path(path).is_file():
            problems.append(f"{flag} {path}: there is no such file")
    if args.boost_args is not None and args.boost != "expert":
        problems.append("--boost_args needs --boost expert")
    for name in (*WORDS, "launcher"):
        try:
            words = shlex.split(getattr(args, name) or "")
            problems += overridden(name, words) if name in WORDS else []
            problems += _untrainable(args, words) if name == "train_args" else []
        except ValueError as error:
            problems.append(f"--{name} {getattr(args, name)!r} cannot be read: {error}")
    program = (args.launcher.split() or [""])[0]
    if shutil.which(program, path=search_path()) is None:
        problems.append(f"--launcher {args.launcher!r}: there is no such program")
    return problems


def _untrainable(args: argparse.Namespace, words: list[str]) -> list[str]:
    """What is wrong where one training would go on with the adapter that another one saved."""
    if not saves_adapter(words):
        return []
    message = "--train_args trains adapters, which are no models to train further: "
    remedies = []
    if args.boost:
        remedies.append(f"leave out --boost {args.boost}, or give the boosted model as --model")
    if args.train_from == "last" and args.iterations > 1:
        remedies.append("give --train_from base")
    return [message + remedy for remedy in remedies]
