"""What a script says otherwise where it is a stage of `rise.iterate`, whose flags are not its own.

`rise.iterate` sets a variable in the environment of its stages: their user has typed no --log_dir,
and the next command is not theirs to run.
"""

from __future__ import annotations

import os

VARIABLE = "RISE_ITERATE_STAGE"
"""Name of the stage, such as iteration1/gen; absent elsewhere."""


def is_stage() -> bool:
    """Whether this process is a stage of an iterated run."""
    return bool(os.environ.get(VARIABLE))


def place(flag: str = "--log_dir") -> str:
    """The flag that says where this script writes: a stage has it from the --out of its run."""
    return "--out of rise.iterate" if is_stage() else flag
