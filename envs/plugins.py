"""Environments from outside: ``FILE.py:Class``, and what installed packages offer.

A package offers a class under the entry-point group ``rise.envs``; in its pyproject.toml:

    [project.entry-points."rise.envs"]
    clock = "my_package.clock:Clock"
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import get_args

from envs.base import Env
from envs.grading.answers import Verdict

GROUP = "rise.envs"
FILE_FORM = re.compile(r"(?P<file>.+\.py):(?P<name>\w+)")
NEEDED = ("name", "rewards", "question_key", "answer_key", "example_line")
"""Attributes without a default in ``Env``."""


def installed() -> dict[str, importlib.metadata.EntryPoint]:
    """Return the entry points of the installed packages by name, in lower case."""
    return {point.name.lower(): point for point in importlib.metadata.entry_points(group=GROUP)}


def from_file(name: str) -> type[Env]:
    form = FILE_FORM.fullmatch(name)
    assert form is not None, name
    path = Path(form["file"])
    if not path.is_file():
        raise ValueError(f"environment {name}: there is no file {path}")
    return _loaded(name, path.name, lambda: getattr(load_file(path), form["name"], None))


def from_package(name: str) -> type[Env] | None:
    point = installed().get(name.lower())
    return _loaded(name, point.value, point.load) if point else None


def checksum(kind: type[Env]) -> str | None:
    """Return a checksum of the file that defines a plug-in; None for a built-in environment."""
    if kind.__module__.partition(".")[0] == __package__:
        return None
    return hashlib.sha256(Path(inspect.getfile(kind)).read_bytes()).hexdigest()[:16]


def load_file(path: Path) -> ModuleType:
    """Return a Python file as a module; it is run once while its content is the same."""
    path = path.resolve()
    version = hashlib.sha256(bytes(path) + path.read_bytes()).hexdigest()[:16]
    return _module(path, f"rise_plugin_{version}")


@functools.cache
def _module(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    # dataclasses, pickle and inspect look a module up by its name
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _loaded(name: str, where: str, load: Callable[[], object]) -> type[Env]:
    try:
        kind = load()
    except Exception as error:
        raise ValueError(
            f"environment {name}: {where} raised {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Env)):
        unknown = " (there is none of that name)" * (kind is None)
        raise ValueError(f"environment {name}: give a class that is derived from envs.Env{unknown}")
    missing = [attribute for attribute in NEEDED if not hasattr(kind, attribute)]
    missing += sorted(kind.__abstractmethods__)
    if missing:
        raise ValueError(f"environment {name} lacks {', '.join(missing)}: see docs/grading.md")
    if not isinstance(kind.rewards, dict):
        raise ValueError(f"environment {name}: rewards is {kind.rewards!r}: give a dict")
    if unpaid := [verdict for verdict in get_args(Verdict) if verdict not in kind.rewards]:
        raise ValueError(f"environment {name}: rewards has no value for {', '.join(unpaid)}")
    if not all(type(reward) in (int, float) for reward in kind.rewards.values()) or not all(
        map(math.isfinite, kind.rewards.values())
    ):
        raise ValueError(f"environment {name}: rewards is {kind.rewards}: give finite numbers")
    others = {verdict: reward for verdict, reward in kind.rewards.items() if verdict != "right"}
    if kind.rewards["right"] != 1 or max(others.values()) >= 1:
        raise ValueError(
            f"environment {name}: rewards is {kind.rewards}: right must pay 1 and everything else "
            "less, as this is how a success is known in a log; --temperature of "
            "workflow_convert.py says how much the difference counts"
        )
    return kind
