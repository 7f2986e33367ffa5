"""Which problems one job plays: all of them, or its share (`--shard I/N`).

The shares are even: shard I of N has the I-th problem and every N-th after it. Task ids stay those
of the whole file and so do the seeds, so that the shards together are the one run: see
`rise.merge`.
"""

import re
from typing import Any


def parse(text: str) -> tuple[int, int]:
    """(I, N) of I/N, 1-based.

    >>> parse("2/4")
    (2, 4)
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"--shard is {text!r}: give I/N with I from 1 to N, such as 1/4")
    return number, count


def task_ids(config: dict[str, Any]) -> range:
    """The task ids that a run with this configuration plays, in order.

    >>> list(task_ids({"shard": "2/3", "problems": 8}))
    [1, 4, 7]
    """
    number, count = parse(config.get("shard") or "1/1")
    return range(number - 1, config["problems"], count)
