r"""Environments of problems with checkable answers.

    >>> import envs
    >>> envs.grade("gsm8k", r"48 + 24 = \boxed{72}", "She sold 48 + 24 = 72 clips.\n#### 72")
    1

``make`` builds an environment from a problem file, ``grade`` judges one response, ``shutdown``
ends the grading processes (they also end with the program). Importing registers ``rise/GSM8K-v0``
and ``rise/MATH-v0`` with gymnasium; sympy and math-verify are never imported in this process.
"""

from pathlib import Path
from typing import Any

import gymnasium

from envs.base import Env, Grade
from envs.checker import shutdown
from envs.gsm8k import GSM8K
from envs.math import MATH

__all__ = ["GSM8K", "MATH", "NAMES", "Env", "Grade", "grade", "make", "shutdown"]

NAMES: dict[str, type[Env]] = {"gsm8k": GSM8K, "math": MATH}
"""The environments by name; names are found in any case."""


def make(name: str, data_path: str | Path, **options: Any) -> Env:
    """Return the environment ``name`` with the problems of ``data_path``.

    Args:
        name: a key of ``NAMES``, in any case.
        data_path: a file of JSON lines.
        options: ``prompt_style``, ``max_turns`` and ``feedback``, as ``Env`` takes them.

    Raises:
        ValueError: the name is unknown, or the file or an option is not usable.
    """
    return _find(name)(data_path, **options)


def grade(env: str, response: str, reference: str) -> int:
    """Return the reward of a response.

    Args:
        env: the name of the environment, in any case.
        response: the model's whole text.
        reference: the data set's own answer or solution text.

    Raises:
        ValueError: the environment is unknown; no response or reference raises.
    """
    return _find(env).judge(response, reference).reward


def _find(name: str) -> type[Env]:
    if name.lower() not in NAMES:
        raise ValueError(f"unknown environment {name!r}: use one of {', '.join(NAMES)}")
    return NAMES[name.lower()]


for _env in NAMES.values():
    gymnasium.register(f"rise/{_env.__name__}-v0", entry_point=f"{_env.__module__}:{_env.__name__}")
