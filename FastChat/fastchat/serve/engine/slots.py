"""Who sits in which slot of the pool, and what a new prompt can take over from the others.

Rows that decode come first, then rows whose prompt is being computed; row i of that order has slot
i, so that either group is one slice of the pool. A row of the second group may stand for several
samples of one prompt: it keeps places reserved for them and is copied when the prompt is done.

Slots behind them keep the tokens of rows that ended. A prompt that begins like the tokens of any
slot (the shared preamble, the same dialogue one turn earlier) copies their keys and values instead
of computing them; one that continues nearly all of a kept row takes over its slot. When there is no
room for all kept rows, the oldest drop out, those last that a waiting prompt will continue.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from fastchat.serve.engine.kv_pool import KVPool
from fastchat.serve.engine.request import EngineRequest, Sample

SHORTEST_SHARE = 16
"""Tokens from which on copying is worth it."""
_NEARLY_ALL = 0.75
"""The share of a kept row that a prompt has to continue to take it over; the rest is lost."""


@dataclass(eq=False)
class Row:
    """Samples of one request that share a slot: several while filling, one while decoding."""

    request: EngineRequest
    samples: list[Sample]
    slot: int = -1
    length: int = 0
    """Tokens whose keys and values are in the slot."""
    key: bytes = field(default=b"", repr=False)
    """The tokens to compare other prompts with; those past `length` are not in the slot yet."""
    begun: bool = False
    """Whether a part of the prompt was computed here; until then more may be copied."""
    continues: Row | None = field(default=None, repr=False)
    """While the row waits: the kept row that it begins like; the row itself if there is none."""

    def __post_init__(self) -> None:
        self.key = self.key or _packed(self.request.prompt)

    @property
    def over(self) -> bool:
        return self.request.done.done() or self.samples[0].finish_reason is not None

    @property
    def to_compute(self) -> int:
        """Tokens of the prompt that its own kept row does not hold."""
        return len(self.request.prompt) - (self.held_by(self.continues) if self.continues else 0)

    def shared(self, other: Row) -> int:
        """How many tokens of this row's prompt the other's slot holds or will hold."""
        longest = min(len(self.request.prompt) - 1, len(other.key) // _SIZE)
        return _common(self.key, other.key, longest)

    def held_by(self, other: Row) -> int:
        return min(self.shared(other), other.length)


class SlotTable:
    """The rows in the pool: `max_rows` decode or fill; its other slots keep old rows."""

    def __init__(self, pool: KVPool, max_rows: int):
        self.pool = pool
        self.max_rows = max_rows
        self.active: list[Row] = []
        self.filling: list[Row] = []
        self.kept: list[Row] = []
        """Rows that ended, the least recently used first."""
        self._awaited: set[Row | None] = set()

    @property
    def taken(self) -> int:
        return len(self.active) + sum(len(row.samples) for row in self.filling)

    def taken_by(self, n: int) -> int:
        """Slots that requests for more than n samples use or reserve."""
        return sum(len(row.samples) for row in self._rows() if row.request.n > n)

    def room(self, needed: int) -> int:
        """How many more samples of up to `needed` tokens fit, with slots made longer or shorter."""
        rows = min(self.max_rows, self.pool.rows_at(self._length_with(needed)))
        return max(0, rows - self.taken)

    def admit(self, request: EngineRequest, samples: list[Sample]) -> int:
        """Give a prompt with samples that fit by `room` a slot; returns the tokens that it has."""
        length = self._length_with(request.length)
        if length != self.pool.length:
            self._reshape(length)
        row = Row(request, samples)
        if not request.scores_prompt:
            self._take_over(row)
        self.filling.append(row)
        self._settle()
        return row.length

    def expect(self, waiting: list[Row]) -> None:
        """Learn which prompts wait, so that what they continue is kept longest."""
        for row in waiting:
            if row.continues is None:
                row.continues = self._continued(row) or row
        self._awaited = {row.continues for row in waiting}

    def reuse(self, row: Row) -> int:
        """Copy a prompt's beginning from the slot that shares most; returns the tokens added."""
        others = [other for other in (*self._rows(), *self.kept) if other is not row]
        sizes = [row.held_by(other) for other in others]
        size = max(sizes, default=0)
        gain = size - row.length
        if gain < SHORTEST_SHARE:
            return 0
        donor = others[sizes.index(size)]
        self.pool.move([donor.slot], [row.slot], size)
        row.length = size
        if donor in self.kept:
            self.kept.remove(donor)
            # One that is continued to its end has nothing left that the new row does not have.
            if size < donor.length:
                self.kept.append(donor)
        return gain

    def activate(self, finished: list[Row]) -> list[Row]:
        new = [
            Row(row.request, [sample], row.slot, row.length, row.key)
            for row in finished
            for sample in row.samples
        ]
        self.filling = [row for row in self.filling if row not in finished]
        self.active += new
        self._settle()
        return new

    def prune(self) -> None:
        """Take out rows that are over, close the gaps and keep what was computed."""
        ended = [row for row in self._rows() if row.over]
        if not ended:
            return
        place = 0
        while place < len(self.active):
            if self.active[place] in ended:
                # The last row fills the gap: one copy instead of a shift of all that follow.
                self.active[place] = self.active[-1]
                self.active.pop()
            else:
                place += 1
        for row in ended:
            if row in self.filling:
                # Nobody has seen yet whether what it computed are numbers.
                self.forget(row)
            elif row.length >= SHORTEST_SHARE:
                row.key = _packed([*row.request.prompt, *row.samples[0].tokens][: row.length])
                self.kept.append(row)
        self.filling = [row for row in self.filling if row not in ended]
        self._settle()

    def forget(self, row: Row) -> None:
        row.length = 0
        self.pool.clear(row.slot)

    def clear(self) -> list[Row]:
        rows = self._rows()
        self.active, self.filling, self.kept = [], [], []
        return rows

    def _rows(self) -> list[Row]:
        return self.active + self.filling

    def _length_with(self, needed: int) -> int:
        """The slot length to use for the present rows and one more that needs so many tokens."""
        pool = self.pool
        if needed <= pool.length and self.taken < pool.rows:
            return pool.length
        return pool.slot_length(max([needed, *(row.request.length for row in self._rows())]))

    def _continued(self, row: Row) -> Row | None:
        best = max(self.kept, key=row.held_by, default=None)
        return best if best is not None and row.held_by(best) >= SHORTEST_SHARE else None

    def _take_over(self, row: Row) -> None:
        """Give a row the slot of the kept row that it continues: nothing has to be copied.

        Where only a part of it is continued, the rest is lost; that is better than to lose another
        row that a waiting prompt continues.
        """
        donor = self._continued(row)
        if donor is None:
            return
        full = len(self.kept) + len(self._rows()) >= self.pool.rows
        size = row.held_by(donor)
        if size >= _NEARLY_ALL * donor.length or (full and self._awaited.issuperset(self.kept)):
            row.slot, row.length = donor.slot, size
            self.kept.remove(donor)

    def _keep(self, most: int) -> None:
        """Let kept rows drop out: the oldest, those last that a waiting prompt will continue."""
        excess = len(self.kept) - most
        if excess > 0:
            # Sorting keeps the order of age among equals.
            dropped = sorted(self.kept, key=lambda row: row in self._awaited)[:excess]
            self.kept = [row for row in self.kept if row not in dropped]

    def _reshape(self, length: int) -> None:
        """Make all slots that long; as many kept rows stay as there is room for, cut to it."""
        self._keep(self.pool.rows_at(length) - self.taken)
        rows = [*self._rows(), *self.kept]
        for row in self.kept:
            row.length = min(row.length, length)
        filled = max((row.length for row in rows), default=0)
        self.pool.reshape(length, [row.slot for row in rows], filled)
        for place, row in enumerate(rows):
            row.slot = place

    def _settle(self) -> None:
        """Give every row the slot of its place; kept rows make way."""
        rows = self._rows()
        self._keep(self.pool.rows - len(rows))
        busy = {row.slot for row in self.kept}
        free = (i for i in reversed(range(len(rows), self.pool.rows)) if i not in busy)
        moved = [(row, place) for place, row in enumerate(rows) if row.slot != place]
        moved += [(row, next(free)) for row in self.kept if row.slot < len(rows)]
        full = [(row, place) for row, place in moved if row.length]
        if full:
            self.pool.move(
                [row.slot for row, _ in full],
                [place for _, place in full],
                max(row.length for row, _ in full),
            )
        for row, place in moved:
            row.slot = place


_SIZE = array("i").itemsize


def _packed(tokens: list[int]) -> bytes:
    return array("i", tokens).tobytes()


def _common(one: bytes, other: bytes, longest: int) -> int:
    if one[: longest * _SIZE] == other[: longest * _SIZE]:
        return longest
    low, high = 0, longest
    while high - low > 1:
        middle = (low + high) // 2
        if one[low * _SIZE : middle * _SIZE] == other[low * _SIZE : middle * _SIZE]:
            low = middle
        else:
            high = middle
    return low
