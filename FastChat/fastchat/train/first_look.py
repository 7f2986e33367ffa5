"""What the trainer refuses before torch and transformers are imported, which takes 10 s and more.

`arguments.parse` and `checks.check` look at everything; this finds the commonest slips at once.
"""

import argparse
import importlib.util
import re
from pathlib import Path

from fastchat.model.weight_files import check_files
from fastchat.utils import nearest, similar

FLAGS = re.compile(r'^    (\w+): |"--(\w+)"', re.MULTILINE)
"""A field of a dataclass, or an alias of one."""


def first_look(argv: list[str]) -> list[str]:
    """A line for each flag that is unknown, and for data or a model that is not there."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in (known := _known_flags()):
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", dest=name, nargs="*")
    found, unknown = parser.parse_known_args(argv)
    if not known or found.check is not None or not {"-h", "--help"}.isdisjoint(argv):
        return []
    given = {name: words[-1] for name, words in vars(found).items() if words}
    problems = unknown_flags(unknown, parser)
    problems += missing_data(given.get("data_path"), given.get("eval_data_path"))
    if "model_name_or_path" in given:
        problems += model_problems(given["model_name_or_path"], given.get("cache_dir"))
    return problems


def _known_flags() -> set[str]:
    """Flags by the text of the files that define them; none where that may not be all of them."""
    package = importlib.util.find_spec("transformers")
    places = package.submodule_search_locations if package else None
    inherited = Path(places[0], "training_args.py").read_text(encoding="utf-8") if places else ""
    if "\nclass TrainingArguments:" not in inherited:
        return set()
    own = [Path(__file__).with_name(name).read_text() for name in ("arguments.py", "lora.py")]
    fields = FLAGS.findall("\n".join([inherited, *own]))
    names = {field or alias for field, alias in fields}
    return names | {f"no_{name}" for name in names}


def unknown_flags(unknown: list[str], parser: argparse.ArgumentParser) -> list[str]:
    if not unknown:
        return []
    known = [name for action in parser._actions for name in action.option_strings]
    names = [word.partition("=")[0] for word in unknown if word.startswith("-")]
    hint = f"{near} " if (near := nearest(names, known)) else ""
    shown = f"{'s' * (len(names) > 1)} {' '.join(names or unknown)}"
    return [f"unknown argument{shown}: {hint}--help lists all"]


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
