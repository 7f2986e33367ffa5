"""The token trie of rows that begin alike, and how an optimizer step is divided into such tries.

In a causal model the state of a token depends on the tokens before it alone, so a prefix that
several rows share (the preamble, the earlier turns of a trajectory) has to be computed once. The
trie is laid out in depth-first order: the tokens that token j sees are those whose subtree it is
in, i <= j < ends[i], which are exactly the tokens before it in its row.

Letters in shapes: T tokens of the trie, L tokens of a row.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_ID = np.dtype(">u4")
"""A token id in bytes that compare like the numbers: the highest comes first."""


@dataclass(frozen=True)
class Node:
    """A run of tokens without a branch: `start` to `stop` in the layout."""

    start: int
    stop: int
    ancestors: tuple[int, ...]
    """The nodes on the way from the root to this one, by number."""


@dataclass(frozen=True)
class TokenTree:
    """A trie of token ids in depth-first order; all arrays int64 (T,)."""

    tokens: np.ndarray
    depths: np.ndarray
    """Position of each token in its rows, from 0."""
    ends: np.ndarray
    """Where the subtree of each token ends in the layout."""
    nodes: tuple[Node, ...]
    """In the order of the layout, which they cover."""
    paths: tuple[np.ndarray, ...]
    """For each row, in the order given: where its tokens are in the layout, int64 (L,)."""


def build_tree(rows: Sequence[Sequence[int]]) -> TokenTree:
    """The trie of rows of token ids, in any order, in which every common prefix is stored once."""
    arrays = [np.asarray(row, dtype=np.int64) for row in rows]
    ends: np.ndarray = np.zeros(sum(map(len, arrays)), dtype=np.int64)
    before: np.ndarray = np.empty(0, dtype=np.int64)
    path = before
    tokens, depths, paths, cuts = [], [], {}, {0}
    size = 0
    for index in _order([_key(array) for array in arrays]):
        row = arrays[index]
        shared = common_prefix(before, row)
        ends[path[shared:]] = size
        if shared:
            cuts.add(int(path[shared - 1]) + 1)
        cuts.add(size)
        path = np.concatenate([path[:shared], np.arange(size, size + len(row) - shared)])
        size += len(row) - shared
        tokens.append(row[shared:])
        depths.append(np.arange(shared, len(row)))
        paths[index], before = path, row
    ends[path] = size
    ends = ends[:size]
    return TokenTree(
        tokens=np.concatenate(tokens),
        depths=np.concatenate(depths),
        ends=ends,
        nodes=_nodes(sorted(cuts | {size}), ends),
        paths=tuple(paths[index] for index in range(len(rows))),
    )


def common_prefix(first: np.ndarray, second: np.ndarray) -> int:
    length = min(len(first), len(second))
    differing = np.flatnonzero(first[:length] != second[:length])
    return int(differing[0]) if len(differing) else length


class PrefixOrder:
    """All rows of a data set in lexicographic order, and what neighbours there share.

    The rows of any selection, taken in this order, are the depth-first order of their trie.
    """

    def __init__(self, rows: Iterable[Sequence[int]]):
        # One copy of all ids, the one that is sorted: they may be most of what fits in memory.
        keys = [_key(row) for row in rows]
        order = _order(keys)
        self.lengths = np.array([len(key) // _ID.itemsize for key in keys])
        self._place = np.empty(len(order), dtype=np.int64)
        self._place[order] = np.arange(len(order))
        self._shared = np.zeros(len(order), dtype=np.int64)
        for place, (first, second) in enumerate(pairwise(order), start=1):
            self._shared[place] = common_prefix(
                np.frombuffer(keys[first], _ID), np.frombuffer(keys[second], _ID)
            )

    def arrange(self, rows: Sequence[int]) -> tuple[list[int], list[int]]:
        """Different rows in depth-first order, and the tokens each shares with the one before."""
        places = np.sort(self._place[list(rows)])
        by_place = {self._place[row]: row for row in rows}
        shared = [
            int(self._shared[first + 1 : second + 1].min()) for first, second in pairwise(places)
        ]
        return [by_place[place] for place in places], [0, *shared]


def divide(
    order: PrefixOrder, rows: Sequence[int], budget: int, processes: int
) -> list[list[list[int]]]:
    """Divide the rows of a step into tries, for each process the rows of its forward passes.

    Neighbours in depth-first order stay together. There are as few forward passes as the budget, in
    tokens of a trie, allows (a longer row is a trie of its own), and then the largest trie is as
    small as possible; tries of the same pass are of similar size. Every process has equally many,
    some of them empty.
    """
    arranged, shared = order.arrange(rows)
    lengths = [int(order.lengths[row]) for row in arranged]
    low, high = max(lengths), max(budget, *lengths)
    allowed = math.ceil(len(_fill(lengths, shared, high)) / processes) * processes
    while low < high:
        middle = (low + high) // 2
        if len(_fill(lengths, shared, middle)) <= allowed:
            high = middle
        else:
            low = middle + 1
    cuts = _fill(lengths, shared, high)
    spans = [arranged[start:stop] for start, stop, _ in sorted(cuts, key=lambda cut: -cut[2])]
    spans += [[] for _ in range(allowed - len(spans))]
    return [spans[rank::processes] for rank in range(processes)]


def _fill(lengths: list[int], shared: list[int], limit: int) -> list[tuple[int, int, int]]:
    """Consecutive rows in tries of at most `limit` tokens: (start, stop, tokens) of each."""
    cuts, start, size = [], 0, 0
    for row, length in enumerate(lengths):
        more = length - shared[row]
        if row > start and size + more > limit:
            cuts.append((start, row, size))
            start = row
        size = length if row == start else size + more
    return [*cuts, (start, len(lengths), size)]


def _key(row: Sequence[int] | np.ndarray) -> bytes:
    """Token ids as bytes in whose order the rows are in lexicographic order."""
    return np.asarray(row).astype(_ID).tobytes()


def _order(keys: Sequence[bytes]) -> list[int]:
    return sorted(range(len(keys)), key=keys.__getitem__)


def _nodes(bounds: Sequence[int], ends: np.ndarray) -> tuple[Node, ...]:
    nodes: list[Node] = []
    above: list[int] = []
    for start, stop in pairwise(bounds):
        while above and ends[nodes[above[-1]].stop - 1] <= start:
            above.pop()
        nodes.append(Node(start, stop, tuple(above)))
        above.append(len(nodes) - 1)
    return tuple(nodes)
