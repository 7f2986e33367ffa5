"""Launch the stages as a user does, on problems and Python experts that a test writes."""

import argparse
import contextlib
import importlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[2]

EXPERTS = r"""
import os, time

def student(problem, messages):
    'Wrong at turn 1 for two of three problems; does not depend on when it is called.'
    time.sleep(float(os.environ.get("STUDENT_SECONDS", 0)))
    turn = sum(m["role"] == "assistant" for m in messages)
    right = problem["answer"].split("#### ")[1]
    if (problem["task_id"] + turn) % 3 == 0:
        return f"It is \\boxed{{{right}}}"
    return "I do not know" if problem["task_id"] % 4 == 0 else f"It is \\boxed{{{int(right) + 1}}}"

def teacher(problem, messages):
    return "It is \\boxed{" + problem["answer"].split("#### ")[1] + "}"

def unwilling(problem, messages):
    if problem["task_id"] % 2 and not os.path.exists("willing"):
        raise RuntimeError("not today")
    return teacher(problem, messages)
"""


def write_inputs(directory: Path, problems: int = 12) -> None:
    """problems.jsonl (i + 1, for i = 0, 1, ...) and experts.py."""
    rows = [
        {"question": f"What is {i} + 1?", "answer": f"{i}+1={i + 1}\n#### {i + 1}"}
        for i in range(problems)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (directory / "problems.jsonl").write_text(text)
    (directory / "experts.py").write_text(EXPERTS)


def command(script: str, *arguments: object) -> list[str]:
    """The command line of a script, with the arguments that every test shares."""
    shared = ["--data_path", "problems.jsonl", "--env", "gsm8k", "--prompt_style", "bare"]
    if "--controller_address" not in arguments:
        shared += ["--controller_address", "http://127.0.0.1:9"]
    return [sys.executable, str(ROOT / script), *shared, *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    """The environment of a stage: the packages of this checkout, one thread, no key."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "FastChat")])
    clean = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
    return clean | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | changes


def run_program(*words: object, code: int = 0, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, which has to be the exit code `code`; what it printed."""
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, **how)
    assert done.returncode == code, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def call(
    directory: Path, script: str, *arguments: object, code: int = 0, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run a script's main() in `directory`, in this process: starting Python takes seconds."""
    main = importlib.import_module(script.removesuffix(".py")).main
    words, env = command(script, *arguments)[1:], environment(**changes)
    return run_main(main, *words, directory=directory, environment=env, code=code)


def parsed(words: list[str]) -> argparse.Namespace:
    """What a script reads of `python SCRIPT ARGUMENTS...`."""
    return importlib.import_module(words[1].removesuffix(".py")).parse_args(words[2:])


def value(words: list[str], flag: str) -> str:
    """The values of a flag, as one text; the last one given counts."""
    rest = words[len(words) - words[::-1].index(flag) :]
    ends = [i for i, word in enumerate(rest) if word.startswith("--")]
    return " ".join(rest[: ends[0] if ends else None])


STAND_IN = """#!/bin/bash
[ "$1" != -c ] || exec {python} "$@"
echo "$(printf '%q ' "${{0##*/}}" "$@")" >>{calls}  # at once: two may run
while [ $# -gt 1 ]; do
    case $1 in
        --log_dir | --output_dir) mkdir -p "$2" && echo '{{"steps": 3}}' >"$2/training.json" ;;
    esac
    shift
done
"""
"""Python that writes down what it is asked for, and makes folders that look finished."""
OUTPUTS = ("--log_dir", "--output_dir", "--output", "-o", "data/smollm2.py")
"""What stands before a place that a command writes."""


def planned(place: Path, script: str, **knobs: str) -> dict[str, list[str]]:
    """What quickstart.sh, real.sh or study.sh runs, by what it writes below OUT.

    Stand-ins take the place of Python. Each stage is understood and reads what another one writes.
    """
    from fastchat.train import arguments

    shutil.copytree(ROOT / "scripts", place / "scripts", ignore=shutil.ignore_patterns("*.py"))
    (place / "scripts" / "setup.sh").write_text("")
    python, calls, out = place / "bin" / "python", place / "calls", place / "log"
    python.parent.mkdir()
    python.write_text(STAND_IN.format(python=sys.executable, calls=calls))
    python.chmod(0o755)
    env = os.environ | knobs | {"OUT": str(out), "VENV": "."}
    run_program("bash", place / "scripts" / script, env=env)
    commands = [shlex.split(line) for line in calls.read_text().splitlines()]
    made = {
        words[words.index(flag) + 1]: words
        for words in commands
        for flag in OUTPUTS
        if flag in words
    }
    for words in commands:
        for path in (Path(word) for word in words if word.startswith(f"{out}/")):
            known = {str(path), *map(str, path.parents)} & made.keys()
            assert known or path.name.startswith("seed"), f"who makes {path}? {words}"
        if words[1].startswith("workflow_"):
            parsed(words)
        elif words[1].endswith("train_mem.py"):
            arguments.parse(words[2:])
    return {str(Path(path).relative_to(out)): words for path, words in made.items()}


def own_environment(folder: Path) -> str:
    """An environment like this one, with a stamp of its own: VENV for scripts that begin by setup.

    Without it setup.sh would take the packages of the environment from this working tree.
    """
    folder.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name != ".rise-setup":
            (folder / entry.name).symlink_to(entry)
    stamp = """
request=$(cat setup.py FastChat/pyproject.toml constraints.txt scripts/setup.sh | cksum)
echo "$request ${TORCH_VERSION:-2.13.0} ${EXTRAS:-dev} $PWD"
"""
    (folder / ".rise-setup").write_text(run_program("bash", "-c", stamp, cwd=ROOT).stdout)
    return os.path.relpath(folder, ROOT)


def run_main(
    main: Callable[[], int | None],
    *words: object,
    directory: Path = ROOT,
    environment: dict[str, str] | None = None,
    code: int = 0,
) -> subprocess.CompletedProcess[str]:
    """Run main() in this process with `words` as its command line, the program's name first.

    It has to end with the exit code `code`; what it printed.
    """
    argv = list(map(str, words))
    out, err = io.StringIO(), io.StringIO()
    with (
        _working_in(directory),
        mock.patch.object(sys, "argv", argv),
        mock.patch.dict(os.environ, environment or {}, clear=environment is not None),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            ended = main()
        except SystemExit as leave:
            ended = leave.code
    assert (ended or 0) == code, out.getvalue() + err.getvalue()
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _working_in(directory: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def begin(
    directory: Path, script: str, *arguments: object, rows: int, **changes: str
) -> subprocess.Popen[str]:
    """Start a script in `directory` and return once its run has at least `rows` rows."""
    process = subprocess.Popen(
        command(script, *arguments),
        cwd=directory,
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = directory / arguments[list(arguments).index("--log_dir") + 1] / "rows.jsonl"
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= rows:
            break
        time.sleep(0.005)
    return process


def files_in(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, with its content, but what Python keeps of modules there."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
