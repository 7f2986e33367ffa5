"""Numbers that stand for texts, and the places where equal ones are."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator

import numpy as np

from rise.episodes.episode import Message


def text_key(*texts: str) -> int:
    """64 bits that stand for these texts: among 10 million, two share them once in 400,000 runs."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        part = text.encode("utf-8", "surrogatepass")
        digest.update(len(part).to_bytes(8, "little") + part)
    return int.from_bytes(digest.digest(), "little")


def messages_key(messages: Iterable[Message], *texts: str) -> int:
    parts = (part for message in messages for part in (message["role"], message["content"]))
    return text_key(*parts, *texts)


def groups(keys: array[int]) -> Iterator[list[int]]:
    """The places of each key, in order; the key that came first is first.

    >>> list(groups(array("Q", [7, 3, 7, 5])))
    [[0, 2], [1], [3]]
    """
    values = np.frombuffer(keys, np.uint64)
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(values[order]) != 0)[: len(order)])
    ends = np.append(starts[1:], len(order))
    for group in np.argsort(order[starts]):
        yield order[starts[group] : ends[group]].tolist()
