"""Which problems one job plays: all of them, or its share (`--shard I/N`).

The shares are even: of the problems (with --shown_attempt other, of the pairs that exchange their
attempts) shard I of N has the I-th and every N-th after it. Task ids stay those of the whole file
and so do the seeds, so that the shards together are the one run: see `rise.merge`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


def parse(text: str) -> tuple[int, int]:
    """(I, N) of I/N, 1-based.

    >>> parse("2/4")
    (2, 4)

    Raises:
        ValueError: if it is no shard.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"--shard is {text!r}: give I/N with I from 1 to N, such as 1/4")
    return number, count


def groups(config: dict[str, Any]) -> Iterator[list[int]]:
    """The groups of problems that a run with this configuration plays together.

    Pairs are made of the whole file, so that every shard and every resumed run makes the same.
    """
    pass

    number, count = parse(config.get("shard") or "1/1")
    everything = range(config["problems"])
    found = groups_of(everything, config["shown_attempt"], config["seed"])
    return islice(found, number - 1, None, count)


def task_ids(config: dict[str, Any]) -> Sequence[int]:
    """The task ids that a run with this configuration plays, in order.

    >>> list(task_ids({"shard": "2/3", "problems": 8, "shown_attempt": "own", "seed": 0}))
    [1, 4, 7]
    """
    if config["shown_attempt"] == "own":
        number, count = parse(config.get("shard") or "1/1")
        return range(number - 1, config["problems"], count)
    return sorted(chain.from_iterable(groups(config)))


def groups_of(task_ids: Sequence[int], shown_attempt: str, seed: int) -> Iterable[list[int]]:
    """The problems that must be played together: single ones, or pairs that exchange attempts.

    With `shown_attempt` "other" the problems are shuffled by the seed and paired; an odd one makes
    a group of three.

    Raises:
        ValueError: if attempts are to be exchanged and there is only one problem.
    """
    if shown_attempt == "own":
        return ([task_id] for task_id in task_ids)
    if len(task_ids) < 2:
        raise ValueError("--shown_attempt other needs two problems or more")
    shuffled = list(task_ids)
    random.Random(seed).shuffle(shuffled)
    groups = [shuffled[i : i + 2] for i in range(0, len(shuffled), 2)]
    if len(groups[-1]) == 1:
        odd = groups.pop()
        groups[-1] += odd
    return groups
