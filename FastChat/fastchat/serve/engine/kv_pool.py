"""Keys and values of all running sequences in one preallocated block of memory.

Letters: R slots, H key/value heads, L tokens per slot, D head size, B rows of a forward pass, P new
tokens per row, T tokens attended over.

Every layer owns a flat tensor for a fixed number of tokens, seen as (R, H, L, D). When a sequence
needs more than L tokens the same memory is seen as fewer, longer slots, and back. The running
sequences always fill the first slots, so that a forward pass reads a slice and copies nothing.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_GPU_SHARE = 0.85
_CPU_SHARE = 0.3
_FREE_SHARE = 0.95
"""The most of a GPU's free memory that the pool takes: forward passes need the rest."""
_LOGIT_COPIES = 6
"""Float32 tensors of the size of the logits that sampling holds at its peak."""
_LEAST_TOKENS = 64


@dataclass(frozen=True)
class Copies:
    """What attention copies of one layer's cache in a pass, see `EngineModel.repeated_bytes`."""

    token_bytes: int
    """For one token attended over."""
    tokens: int
    """The most tokens over which the rows of such a pass attend together."""


def token_bytes(shapes: Sequence[LayerShape]) -> int:
    return sum(
        shape.heads * (shape.key_size + shape.value_size) * shape.dtype.itemsize for shape in shapes
    )


def affordable_tokens(
    shapes: Sequence[LayerShape],
    device: Any,
    max_rows: int,
    vocabulary: int,
    fraction: float | None = None,
    copies: Copies = Copies(0, 0),
    limit: int | None = None,
) -> int:
    """Tokens that fit beside the model, the working memory of `max_rows` rows and the copies.

    `fraction` is the share of the GPU's memory, in (0, 1], for the pool and the weights, which are
    there already; None is 85 % of what is free for the pool. Without a GPU it has no effect, and
    the pool may grow to 30 % of the memory that is free now. `limit` bounds it in bytes.
    """
    working = max_rows * vocabulary * 4 * _LOGIT_COPIES
    usable = _usable_bytes(device, fraction) - working
    cached, copied = token_bytes(shapes), copies.token_bytes
    # A pool of fewer tokens than may be copied at once has copies of all of them at most.
    tokens = int(max(usable // (cached + copied), (usable - copies.tokens * copied) // cached))
    if limit is not None:
        tokens = min(tokens, limit // cached)
    if tokens < _LEAST_TOKENS:
        if limit is not None and limit // cached < _LEAST_TOKENS:
            raise ValueError(
                f"--kv-memory of {limit} bytes holds {limit // cached} tokens; give "
                f"{_LEAST_TOKENS * cached} or more"
            )
        limited = device.type == "cuda" and fraction is not None
        within = f" and --gpu-memory-fraction {fraction:g}" if limited else ""
        remedy = "raise the fraction" if limited else "free memory"
        raise ValueError(
            f"{free_bytes(device) / 2**20:.0f} MiB of free memory on {device}{within} hold no "
            f"prompt beside the model; {remedy}, lower --limit-worker-concurrency, or load with "
            "--dtype bfloat16"
        )
    return tokens


def _usable_bytes(device: Any, fraction: float | None) -> float:
    free = free_bytes(device)
    if device.type != "cuda":
        return free * _CPU_SHARE
    if fraction is None:
        return free * _GPU_SHARE
    _, total = torch.cuda.mem_get_info(device)
    own = total * fraction - torch.cuda.memory_allocated(device)
    return min(own, free * _FREE_SHARE)


def free_bytes(device: Any) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    import psutil

    return min(psutil.virtual_memory().available, _container_bytes())


def _container_bytes() -> int:
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        return max(0, limit - used)
    except (OSError, ValueError):
        return 2**62


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
    counts: list[int]

    @property
    def width(self) -> int:
        """P: the longest row."""
        return max(self.counts)

    @property
    def end(self) -> int:
        """T: the tokens of the fullest slot after the pass."""
        return max(start + count for start, count in zip(self.starts, self.counts, strict=True))


class KVPool:
    """At most `max_rows` slots of at most `max_length` tokens each, in memory for `tokens`."""

    def __init__(
        self, shapes: Sequence[LayerShape], max_rows: int, max_length: int, tokens: int, device: Any
    ):
        self.max_rows = max_rows
        self.tokens = min(tokens, max_rows * max_length)
        self.max_length = min(max_length, self.tokens)
        self.device = device
        self._shapes = shapes
        # Zeros, not empty memory: a masked NaN would still poison the attention sum.
        self._flat = [
            tuple(
                _zeros(self.tokens * shape.heads * size, shape.dtype, device)
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
        sources = torch.tensor(slots, dtype=torch.long, device=self.device)
        old = (*self.keys, *self.values)
        self._view(length)
        # One tensor after the other: a copy of all of them might not fit beside the pool.
        for before, after in zip(old, (*self.keys, *self.values), strict=True):
            after[: len(slots), :, :filled] = before[sources, :, :filled]

    def move(self, sources: Sequence[int], targets: Sequence[int], filled: int) -> None:
        """Copy the first `filled` tokens of slots; sources are read before targets are written."""
        source = torch.tensor(sources, device=self.device)
        target = torch.tensor(targets, device=self.device)
        for cache in (*self.keys, *self.values):
            cache[target, :, :filled] = cache[source, :, :filled]

    def clear(self, slot: int) -> None:
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


def _zeros(count: int, dtype: Any, device: Any) -> torch.Tensor:
    """That many zeros; on a CPU their memory is taken only as they are written."""
    if torch.device(device).type != "cpu":
        return torch.zeros(count, dtype=dtype, device=device)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return torch.frombuffer(mmap.mmap(-1, count * dtype.itemsize, flags=flags), dtype=dtype)


class PoolCache:
    """What a transformers model takes as `past_key_values` for one forward pass over a span."""

    is_compileable = False

    def __init__(self, pool: KVPool, span: Span):
        self._pool = pool
        self._rows = slice(span.first, span.first + len(span.starts))
        self._end = span.end
        slots: list[int] = []
        places: list[int] = []
        kept: list[int] = []
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
