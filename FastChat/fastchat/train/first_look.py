"""What the trainer refuses before torch and transformers are imported, which takes 10 s and more.

`arguments.parse` and `checks.check` look at everything.
"""

import argparse
import ast
import importlib.util
from pathlib import Path

from fastchat.model.weight_files import check_files
from fastchat.train.data.rows import read_targets
from fastchat.utils import nearest, similar

REQUIRED = {
    "model_name_or_path": "name a checkpoint",
    "data_path": "name the file that workflow_convert.py wrote",
    "output_dir": "name the directory for the checkpoint",
}
NUMBERS = {"int": int, "int | None": int, "float": float, "float | None": float}
TRUTHS = {"yes", "true", "t", "y", "1", "no", "false", "f", "n", "0"}

DEEPSPEED = "use DeepSpeed, --deepspeed deepspeed/zero3.json"
ELSEWHERE = {
    "--fsdp": f"{DEEPSPEED};",
    "--padding_side": "leave it out;",
    "--flash_attn": "leave it out;",
}
"""Beginnings of flags of FastChat's trainers that are not here -> what to do instead."""


def first_look(argv: list[str]) -> list[str]:
    """A line for each slip in the flags, and for each file and model that is not there."""
    flags = flags_of_trainer()
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--lora", dest="use_lora", nargs="?", const="True")
    for name in flags or (*REQUIRED, "eval_data_path", "cache_dir", "check"):
        parser.add_argument(f"--{name}", *_dashed(name), nargs="?", const="True")
    found, rest = parser.parse_known_args(argv)
    if not {"-h", "--help"}.isdisjoint(argv):
        return []
    problems = []
    if flags:
        negated = [f"--no{mark}{name}" for mark in "-_" for name in flags]
        known = [word for action in parser._actions for word in action.option_strings]
        words = [word for word in rest if word.startswith("--") and word.strip("-")]
        unknown = [word for word in words if word.partition("=")[0] not in negated]
        problems += [unknown_flags(unknown, known)] if unknown else []
    problems += [
        f"--{name} is missing: {remedy}"
        for name, remedy in REQUIRED.items()
        if getattr(found, name) is None
    ]
    problems += [
        f"--{name} is {value}: give True or False"
        for name, kind in flags.items()
        if kind in ("bool", "bool | None") and (value := getattr(found, name)) is not None
        if value.lower() not in TRUTHS
    ]
    problems += [
        f"--{name} is {value}: give a number"
        for name, kind in flags.items()
        if (number := NUMBERS.get(kind)) and not _fits(number, value := getattr(found, name))
    ]
    if found.check is not None:
        return problems
    problems += data_problems(found.data_path, found.eval_data_path)
    if found.model_name_or_path:
        problems += model_problems(found.model_name_or_path, found.cache_dir)
    return problems


def flags_of_trainer() -> dict[str, str]:
    """The trainer's flags with their types as they are written in the sources, which is faster.

    Empty where transformers' sources do not say all of its own.
    """
    spec = importlib.util.find_spec("transformers")
    theirs = Path((spec and spec.origin) or "missing").with_name("training_args.py")
    flags: dict[str, str] = {}
    for path in (theirs, *map(Path(__file__).with_name, ("arguments.py", "lora.py"))):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
        classes = [c for c in classes if c.name.endswith("Arguments") and c.decorator_list]
        if path == theirs and ('"aliases"' in text or [c.bases for c in classes] != [[]]):
            return {}
        fields = (node for one in classes for node in one.body if isinstance(node, ast.AnnAssign))
        flags |= {ast.unparse(node.target): ast.unparse(node.annotation) for node in fields}
    return flags


def _fits(number: type, value: str | None) -> bool:
    try:
        return value is None or number(value) is not None
    except ValueError:
        return False


def _dashed(name: str) -> list[str]:
    return [f"--{name.replace('_', '-')}"] if "_" in name else []


def unknown_flags(unknown: list[str], known: list[str]) -> str:
    names = [word.partition("=")[0] for word in unknown if word.startswith("-")]
    told = [say for start, say in ELSEWHERE.items() for name in names if name.startswith(start)]
    slips = [name for name in names if not name.startswith(tuple(ELSEWHERE))]
    needed = [f"--{flag}" for flag in REQUIRED]
    begun = [flag for name in slips for flag in needed if flag.startswith(f"{name}_")]
    near = f"did you mean {', '.join(begun)}?" if begun else nearest(slips, known)
    hints = filter(None, [*dict.fromkeys(told), near, "--help lists all"])
    shown = f"{'s' * (len(names) > 1)} {' '.join(names or unknown)}"
    return f"unknown argument{shown}: {' '.join(hints)}"


def data_problems(*paths: str | None) -> list[str]:
    """What is wrong with the data, as far as its first row tells."""
    problems = []
    for flag, path in zip(("--data_path", "--eval_data_path"), paths, strict=True):
        if path is None:
            continue
        try:
            next(read_targets(path), None)
        except IsADirectoryError:
            remedy = "is a directory: give the file that workflow_convert.py wrote"
            problems.append(f"{flag} {path} {remedy}")
        except FileNotFoundError:
            remedy = f"there is no such file{similar(path)}; workflow_convert.py writes it"
            problems.append(f"{flag} {path}: {remedy}")
        except (OSError, ValueError) as error:
            problems.append(f"{flag} {error}")
    return problems


def model_problems(model: str, cache_dir: str | None) -> list[str]:
    try:
        check_files(model, cache_dir=cache_dir)
    except ValueError as error:
        return [f"--model_name_or_path: {error}"]
    return []
