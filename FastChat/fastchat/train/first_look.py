"""What the trainer refuses before torch and transformers are imported, which takes 10 s and more.

`arguments.parse` and `checks.check` look at everything.
"""

import argparse
from pathlib import Path

from fastchat.model.weight_files import check_files
from fastchat.utils import similar


def first_look(argv: list[str]) -> list[str]:
    """A line for each file of data, and for a model, that is not there."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--check", nargs="?", const=True)
    for name in ("data_path", "eval_data_path", "model_name_or_path", "cache_dir"):
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", nargs="?")
    found, _ = parser.parse_known_args(argv)
    if found.check is not None or not {"-h", "--help"}.isdisjoint(argv):
        return []
    problems = missing_data(found.data_path, found.eval_data_path)
    if found.model_name_or_path:
        problems += model_problems(found.model_name_or_path, found.cache_dir)
    return problems


def missing_data(data_path: str | None, eval_data_path: str | None) -> list[str]:
    return [
        f"{flag} {path}: there is no such file{similar(path)}; workflow_convert.py writes it"
        for flag, path in (("--data_path", data_path), ("--eval_data_path", eval_data_path))
        if path is not None and not Path(path).is_file()
    ]


def model_problems(model: str, cache_dir: str | None) -> list[str]:
    try:
        check_files(model, cache_dir=cache_dir)
    except ValueError as error:
        return [f"--model_name_or_path: {error}"]
    return []
