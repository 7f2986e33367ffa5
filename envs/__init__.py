r"""Environments of problems with checkable answers.

    >>> import envs
    >>> envs.grade("gsm8k", r"48 + 24 = \boxed{72}", "She sold 48 + 24 = 72 clips.\n#### 72")
    1

``make`` builds an environment from a problem file, ``grade`` judges one response, ``shutdown``
ends the grading processes (they also end with the program). An environment is named by a key of
``NAMES``, by what an installed package calls it, or as ``FILE.py:Class``. Importing registers
``rise/GSM8K-v0``, ``rise/MATH-v0``, ``rise/SVAMP-v0``, ``rise/ASDiv-v0`` and ``rise/Numeric-v0``
with gymnasium; sympy and math-verify are never imported in this process.
"""

from pathlib import Path
from typing import Any

import gymnasium

from envs import plugins
from envs.base import Env, Grade
from envs.grading.checker import shutdown
from envs.gsm8k import GSM8K
from envs.math import MATH
from envs.numeric import SVAMP, ASDiv, NumberEnv, Numeric

__all__ = ["GSM8K", "MATH", "NAMES", "SVAMP", "ASDiv", "Env", "Grade", "NumberEnv", "Numeric"]
__all__ += ["canonical", "find", "grade", "make", "shutdown"]

NAMES: dict[str, type[Env]] = {kind.name: kind for kind in (GSM8K, MATH, SVAMP, ASDiv, Numeric)}
"""The built-in environments by name; names are found in any case."""


def make(name: str, data_path: str | Path, **options: Any) -> Env:
    """Return ``name`` with the problems of a file of JSON lines; ``options`` go to ``Env``."""
    return find(name)(data_path, **options)


def grade(env: str, response: str, reference: str) -> int:
    """Return the reward of a model's whole text against the data set's own answer text."""
    return find(env).judge(response, reference).reward


def canonical(name: str) -> str:
    """Return ``name`` as runs record it: in lower case, but for a file; nothing is loaded."""
    if plugins.FILE_FORM.fullmatch(name):
        return name
    if name.lower() in NAMES or name.lower() in plugins.installed():
        return name.lower()
    known = ", ".join({**NAMES, **plugins.installed()})
    raise ValueError(f"unknown environment {name!r}: use one of {known}, or FILE.py:Class")


def find(name: str) -> type[Env]:
    """Return the class of an environment, named as ``make`` takes it, or raise ValueError."""
    name = canonical(name)
    if plugins.FILE_FORM.fullmatch(name):
        return plugins.from_file(name)
    # a package cannot take the place of a built-in environment
    found = NAMES.get(name) or plugins.from_package(name)
    assert found is not None, "`canonical` has refused it"
    return found


for _env in NAMES.values():
    gymnasium.register(f"rise/{_env.__name__}-v0", entry_point=f"{_env.__module__}:{_env.__name__}")
