"""The GPUs of this machine, and which worker gets which: without torch, which the driver lacks."""

import itertools
import os
import subprocess
from collections import Counter

LIST = ["nvidia-smi", "-L"]
LIMIT = 30.0
"""Seconds for the driver to list its GPUs."""
SHARE = 0.85
"""Of a GPU's memory, for the weights and caches of all its workers; the rest is for computing."""


def visible_gpus() -> list[str]:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        # CUDA reads the list up to the first name that is none.
        return list(itertools.takewhile(lambda name: name not in ("", "-1"), names))
    try:
        done = subprocess.run(LIST, capture_output=True, text=True, timeout=LIMIT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    gpus = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(gpus))] if done.returncode == 0 else []


def placement(models: int, gpus: list[str]) -> list[list[str | None]]:
    """The GPU of every worker of every model; None where a worker finds its device itself.

    >>> placement(1, ["0", "1"]), placement(2, ["0", "1", "2"]), placement(1, [])
    ([['0', '1']], [['0'], ['1']], [[None]])
    """
    count = max(1, len(gpus) // models)
    names = itertools.cycle(gpus or [None])
    return [[next(names) for _ in range(count)] for _ in range(models)]


def shares(places: list[list[str | None]]) -> dict[str | None, float]:
    """The part of its memory that each worker may take of a GPU that has several workers.

    >>> shares(placement(3, ["0", "1"])), shares(placement(1, ["0", "1"]))
    ({'0': 0.425}, {})
    """
    workers = Counter(itertools.chain.from_iterable(places))
    return {gpu: SHARE / count for gpu, count in workers.items() if count > 1}
