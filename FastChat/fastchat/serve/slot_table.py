"""Who sits in which slot of the pool.

Rows that decode come first, then rows whose prompt is being computed; row i of that order has slot
i, so that either group is one slice of the pool. A row of the second group may stand for several
samples of one prompt: it keeps slots reserved for them and is copied when the prompt is done.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastchat.serve.engine_request import EngineRequest, Sample
from fastchat.serve.kv_pool import KVPool


@dataclass(eq=False)
class Row:
    """Samples of one request that share a slot: several while filling, one while decoding."""

    request: EngineRequest
    samples: list[Sample]
    slot: int = -1
    length: int = 0
    """Tokens whose keys and values are in the slot."""

    @property
    def over(self) -> bool:
        """Whether nothing is left to compute: finished, failed or cancelled."""
        return self.request.done.done() or self.samples[0].finish_reason is not None


class SlotTable:
    """The rows in the pool."""

    def __init__(self, pool: KVPool):
        self.pool = pool
        self.active: list[Row] = []
        self.filling: list[Row] = []

    @property
    def taken(self) -> int:
        """Slots that are used or reserved."""
        return len(self.active) + sum(len(row.samples) for row in self.filling)

    def room(self, needed: int) -> int:
        """How many more samples of up to `needed` tokens fit, with slots made longer or shorter."""
        return max(0, self.pool.rows_at(self._length_with(needed)) - self.taken)

    def admit(self, request: EngineRequest, samples: list[Sample]) -> None:
        """Give a prompt a slot; its samples must fit according to `room`."""
        length = self._length_with(request.length)
        if length != self.pool.length:
            rows = self._rows()
            filled = max((row.length for row in rows), default=0)
            self.pool.reshape(length, len(rows), filled)
        self.filling.append(Row(request, samples, slot=len(self._rows())))

    def activate(self, finished: list[Row]) -> list[Row]:
        """Turn rows with a complete prompt into one decoding row per sample, in their order."""
        new = [
            Row(row.request, [sample], row.slot, row.length)
            for row in finished
            for sample in row.samples
        ]
        self.filling = [row for row in self.filling if row not in finished]
        self.active += new
        self._settle()
        return new

    def prune(self) -> None:
        """Take out rows that are over, and close the gaps."""
        place = 0
        while place < len(self.active):
            if self.active[place].over:
                # The last row fills the gap: one copy instead of a shift of all that follow.
                self.active[place] = self.active[-1]
                self.active.pop()
            else:
                place += 1
        self.filling = [row for row in self.filling if not row.over]
        self._settle()

    def clear(self) -> list[Row]:
        """Empty the table and return what was in it."""
        rows = self._rows()
        self.active, self.filling = [], []
        return rows

    def _rows(self) -> list[Row]:
        return self.active + self.filling

    def _length_with(self, needed: int) -> int:
        """The slot length to use for the present rows and one more that needs so many tokens."""
        pool = self.pool
        if needed <= pool.length and self.taken < pool.rows:
            return pool.length
        return pool.slot_length(max([needed, *(row.request.length for row in self._rows())]))

    def _settle(self) -> None:
        """Give every row the slot of its place."""
        moved = [(row, place) for place, row in enumerate(self._rows()) if row.slot != place]
        full = [(row, place) for row, place in moved if row.length]
        if full:
            self.pool.move(
                [row.slot for row, _ in full],
                [place for _, place in full],
                max(row.length for row, _ in full),
            )
        for row, place in moved:
            row.slot = place
