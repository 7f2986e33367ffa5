"""Write docs/flags.md from the parsers, and lead every link to a function to its line.

    python scripts/flags.py           # after a change of flags, or of a file that the docs link to
    python scripts/flags.py --check   # exit code 1 where something is stale; writes nothing

Reads   the parsers of all programs; README.md and docs/*.md.
Writes  docs/flags.md, and in those pages the lines of links like [`name`](folder/file.py#L12).
"""

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]

PROGRAMS = {
    "workflow_gen.py": "workflow_gen",
    "workflow_convert.py": "workflow_convert",
    "workflow_eval.py": "workflow_eval",
    "train_mem.py": "fastchat.train.arguments",
    **{f"rise.{name}": f"rise.{name}" for name in ("lineage", "merge", "rescore", "compare")},
    "rise.report": "rise.report.__main__",
}
SERVERS = """
controller model_worker vllm_worker openai_api_server gradio_web_server cli test_message status
launch_all_serve shutdown_serve register_worker
"""
PROGRAMS |= {f"fastchat.serve.{name}": f"fastchat.serve.{name}" for name in SERVERS.split()}
PROGRAMS["fastchat.model.apply_lora"] = "fastchat.model.apply_lora"
"""A program, as the documentation calls it -> the module that reads its command line."""

LIKE = {
    "workflow_eval.py": "workflow_gen.py",
    "fastchat.serve.vllm_worker": "fastchat.serve.model_worker",
}
"""A program -> the one that it shares most of its flags with; these are listed there alone."""

PAGE = """# All flags

Made from the parsers by `python scripts/flags.py`; `--help` of each program says the same. What the
flags are for is told where the programs are: [generate](generate.md), [convert](convert.md),
[train](train.md), [evaluate](evaluate.md), [serving](serving.md), [reports](reports.md).
"""
TRAINER = """
All arguments of transformers' `TrainingArguments` (`--help` lists them; those that would change the
loss are refused, with the reason), and:
"""
LINK = re.compile(r"\[`([\w.]+)`\]\(([\w./-]+\.py)(?:#L(\d+))?\)")


class _Seen(Exception):
    """Carries a parser out of the function that made it."""


def reader(program: str) -> Callable[[list[str]], object]:
    """The function that reads a program's command line."""
    module = import_module(PROGRAMS[program])
    if program in ("fastchat.serve.gradio_web_server", "fastchat.serve.cli"):
        tab = import_module("rise.web_tab")
        return lambda words: module.parse_args(words, [tab])
    return module.parse if program == "train_mem.py" else module.parse_args


def parser_of(program: str) -> argparse.ArgumentParser:
    """The parser of a program, caught when it is about to read."""

    def stop(parser, *args, **kwargs):
        raise _Seen(parser)

    with patch.object(argparse.ArgumentParser, "parse_known_args", stop):
        try:
            reader(program)([])
        except _Seen as seen:
            return seen.args[0]
    raise ValueError(f"{program} reads no command line with argparse")


def page() -> str:
    return PAGE + "".join(_section(program) for program in PROGRAMS)


def _section(program: str) -> str:
    trainer, rows = program == "train_mem.py", _rows(program)
    lines = [f"\n## `{program if program.endswith('.py') else f'python -m {program}'}`\n"]
    lines += [TRAINER] if trainer else []
    if program in LIKE:
        others = _rows(LIKE[program])
        left_out = ", ".join(flag.split()[0].rstrip(",") for flag in others if flag not in rows)
        lines.append(f"\nThe flags of `{LIKE[program]}` without {left_out}, and:\n")
        rows = {flag: text for flag, text in rows.items() if others.get(flag) != text}
    lines.append("\n| flag | meaning |\n|---|---|\n")
    return "".join(lines + [f"| {flag} | {text} |\n" for flag, text in rows.items()])


def _rows(program: str) -> dict[str, str]:
    trainer = program == "train_mem.py"
    parser, own = parser_of(program), _own_fields() if trainer else None
    return {
        _flag(action): _meaning(action, parser, trainer)
        for action in parser._actions
        if action.dest != "help"
        and action.help is not argparse.SUPPRESS
        and (own is None or action.dest in own)
    }


def _own_fields() -> set[str]:
    """The trainer's arguments that are not transformers'."""
    arguments = import_module(PROGRAMS["train_mem.py"])
    groups = (arguments.ModelArguments, arguments.LoraArguments, arguments.DataArguments)
    names = {field.name for group in groups for field in dataclasses.fields(group)}
    return names | set(arguments.TrainingArguments.__annotations__)


def _flag(action: argparse.Action) -> str:
    # --dry_run beside --dry-run is no other flag; a short one comes last.
    named = {name.replace("_", "-"): name for name in reversed(action.option_strings)}
    names = sorted(named.values(), key=lambda name: not name.startswith("--"))
    shown = ", ".join(f"`{name}`" for name in names) or f"`{action.metavar or action.dest}`"
    plain = action.nargs == 0 or not action.choices or {*action.choices} <= {True, False}
    return shown if plain else f"{shown} " + r" \| ".join(str(c) for c in action.choices)


def _meaning(action: argparse.Action, parser: argparse.ArgumentParser, trainer: bool) -> str:
    text = " ".join(parser._get_formatter()._expand_help(action).split())
    text = re.sub(r"\s*\(default: .*?\)$", "", text)
    known = action.default not in (None, False, "", argparse.SUPPRESS, dataclasses.MISSING)
    if trainer and known and not action.required:
        default = action.default if isinstance(action.default, list) else [action.default]
        text += f" ({' '.join(map(str, default))})"
    return text.replace("|", r"\|").replace("<", "&lt;")


def linked(text: str, folder: Path) -> str:
    """A page whose links to functions, classes and constants, where they name a line, lead there.

    ValueError if a file has no such name.
    """

    def found(match: re.Match[str]) -> str:
        name, path, line = match.groups()
        there = line_of(name, folder / path)
        return f"[`{name}`]({path}#L{there})" if line else match[0]

    return LINK.sub(found, text)


def line_of(name: str, path: Path) -> int:
    """The line where a file defines a name (of `Class.method` the method).

    ValueError if it does not.
    """
    source = path.read_text(encoding="utf-8").splitlines()
    *owner, last = name.split(".")
    start = line_of(owner[0], path) if owner else 1
    form = re.compile(rf"\s*(?:(?:async )?def|class) {last}\b|{last}(?:: [^=]+)? = |    {last}: ")
    for number, line in enumerate(source[start - 1 :], start=start):
        if form.match(line):
            return number
    raise ValueError(f"{path.relative_to(ROOT)} defines no {name}: mend the link to it")


def pages() -> Iterator[Path]:
    yield from (ROOT / "README.md", ROOT / "CONTRIBUTING.md")
    yield from sorted((ROOT / "docs").glob("*.md"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 if stale")
    args = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "FastChat")]
    wanted = {ROOT / "docs" / "flags.md": page()}
    for path in pages():
        if path not in wanted:
            wanted[path] = linked(path.read_text(encoding="utf-8"), path.parent)
    stale = [
        path
        for path, text in wanted.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        print(f"{'stale' if args.check else 'written'}: {path.relative_to(ROOT)}")
        if not args.check:
            path.write_text(wanted[path], encoding="utf-8")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
