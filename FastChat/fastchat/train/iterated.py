"""What the trainer says otherwise as a stage of `rise.iterate`, whose flags are not its own.

`rise.iterate` sets a variable in the environment of its stages: their user has typed no
--output_dir, and the next command is not theirs to run.
"""

from __future__ import annotations

import os

VARIABLE = "RISE_ITERATE_STAGE"
"""Name of the stage, such as iteration1/train; absent elsewhere."""


def is_stage() -> bool:
    """Whether this process is a stage of an iterated run."""
    return bool(os.environ.get(VARIABLE))


def elsewhere(instead: str = "") -> str:
    """The remedy for an output directory that cannot be used.

    Args:
        instead: what else helps where the user gives the trainer's flags.
    """
    if is_stage():
        return "give another --out of rise.iterate"
    return f"name another --output_dir{instead}"
