"""Keys and values of all running sequences in one preallocated block of memory.

Letters: R slots, H key/value heads, L tokens per slot, D head size, B rows of a forward pass, P new
tokens per row, T tokens attended over.

Every layer owns a flat tensor for a fixed number of tokens, seen as (R, H, L, D). When a sequence
needs more than L tokens the same memory is seen as fewer, longer slots, and back. The running
sequences always fill the first slots, so that a forward pass reads a slice and copies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_SHORTEST_SLOT = 128


@dataclass(frozen=True)
class LayerShape:
    """Sizes of one layer's cache."""

    heads: int
    key_size: int
    value_size: int
    dtype: Any


@dataclass
class Span:
    """Which tokens of which slots a forward pass computes: row i fills slot `first + i`."""

    first: int
    starts: list[int]
    """Tokens that each slot already holds."""
    counts: list[int]
    """New tokens of each row."""

    @property
    def width(self) -> int:
        """P: the longest row."""
        return max(self.counts)

    @property
    def end(self) -> int:
        """T: the tokens of the fullest slot after the pass."""
        return max(start + count for start, count in zip(self.starts, self.counts, strict=True))


class KVPool:
    """The slots.

    Args:
        shapes: one entry per layer.
        max_rows: never more slots than this.
        max_length: never longer slots than this, in tokens (the context length).
        tokens: memory for that many tokens; at least one slot of `max_length` is kept if it fits.
    """

    def __init__(
        self, shapes: Sequence[LayerShape], max_rows: int, max_length: int, tokens: int, device: Any
    ):
        import torch

        self.max_rows = max_rows
        self.tokens = min(tokens, max_rows * max_length)
        self.max_length = min(max_length, self.tokens)
        self.device = device
        self._shapes = shapes
        # Zeros, not empty memory: a masked NaN would still poison the attention sum.
        self._flat = [
            tuple(
                torch.zeros(self.tokens * shape.heads * size, dtype=shape.dtype, device=device)
                for size in (shape.key_size, shape.value_size)
            )
            for shape in shapes
        ]
        self._view(max(self.tokens // max_rows, min(_SHORTEST_SLOT, self.max_length)))

    def rows_at(self, length: int) -> int:
        """R when every slot holds `length` tokens."""
        return min(self.max_rows, self.tokens // length)

    def slot_length(self, needed: int) -> int:
        """L for sequences of up to `needed` tokens, in coarse steps so that it rarely changes."""
        length = _SHORTEST_SLOT
        while length < needed:
            length = length * 3 // 2 if length & (length - 1) == 0 else length * 4 // 3
        return min(length, self.max_length)

    def reshape(self, length: int, slots: Sequence[int], filled: int) -> None:
        """Change L; the first `filled` tokens of `slots` become the first slots, in that order."""
        import torch

        sources = torch.tensor(slots, dtype=torch.long, device=self.device)
        old = (*self.keys, *self.values)
        self._view(length)
        # One tensor after the other: a copy of all of them might not fit beside the pool.
        for before, after in zip(old, (*self.keys, *self.values), strict=True):
            after[: len(slots), :, :filled] = before[sources, :, :filled]

    def move(self, sources: Sequence[int], targets: Sequence[int], filled: int) -> None:
        """Copy the first `filled` tokens of slots; sources are read before targets are written."""
        import torch

        source = torch.tensor(sources, device=self.device)
        target = torch.tensor(targets, device=self.device)
        for cache in (*self.keys, *self.values):
            cache[target, :, :filled] = cache[source, :, :filled]

    def clear(self, slot: int) -> None:
        """Zero a slot whose contents are no numbers any more."""
        for cache in (*self.keys, *self.values):
            cache[slot] = 0

    def _view(self, length: int) -> None:
        self.length = length
        self.rows = self.rows_at(length)
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        for shape, (keys, values) in zip(self._shapes, self._flat, strict=True):
            for caches, flat, size in (
                (self.keys, keys, shape.key_size),
                (self.values, values, shape.value_size),
            ):
                used = self.rows * shape.heads * length * size
                caches.append(flat[:used].view(self.rows, shape.heads, length, size))


class PoolCache:
    """What a transformers model takes as `past_key_values` for one forward pass over a span."""

    is_compileable = False

    def __init__(self, pool: KVPool, span: Span):
        import torch

        self._pool = pool
        self._rows = slice(span.first, span.first + len(span.starts))
        self._end = span.end
        slots, places, kept = [], [], []
        for row, (start, count) in enumerate(zip(span.starts, span.counts, strict=True)):
            slots += [span.first + row] * count
            places += range(start, start + count)
            kept += range(row * span.width, row * span.width + count)
        device = pool.device
        self._slots = torch.tensor(slots, device=device)
        self._places = torch.tensor(places, device=device)
        padded = len(kept) < span.width * len(span.starts)
        # Padding is dropped before it is written: a slot may have no room for it.
        self._kept = torch.tensor(kept, device=device) if padded else None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Always 0: positions and masks are passed to the model, none is derived from here."""
        return 0

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write (B, H, P, D) into the slots and return what the rows attend over, (B, H, T, D)."""
        result = []
        for new, cache in (
            (keys, self._pool.keys[layer_idx]),
            (values, self._pool.values[layer_idx]),
        ):
            by_token = new.transpose(1, 2).flatten(0, 1)
            if self._kept is not None:
                by_token = by_token[self._kept]
            cache[self._slots, :, self._places] = by_token
            result.append(cache[self._rows, :, : self._end])
        return result[0], result[1]
