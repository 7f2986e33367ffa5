"""How many tokens of keys and values fit into the free memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastchat.serve.kv_pool import LayerShape

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
    """Bytes that one token takes in the caches of all layers."""
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
) -> int:
    """Tokens that fit beside the model, the working memory of `max_rows` rows and the copies.

    `fraction` is the share of the GPU's memory, in (0, 1], for the pool and the weights, which are
    there already; None is 85 % of what is free for the pool. Without a GPU it has no effect.

    Raises:
        ValueError: not even a short prompt fits.
    """
    working = max_rows * vocabulary * 4 * _LOGIT_COPIES
    usable = _usable_bytes(device, fraction) - working
    cached, copied = token_bytes(shapes), copies.token_bytes
    # A pool of fewer tokens than may be copied at once has copies of all of them at most.
    tokens = int(max(usable // (cached + copied), (usable - copies.tokens * copied) // cached))
    if tokens < _LEAST_TOKENS:
        limited = device.type == "cuda" and fraction is not None
        limit = f" and --gpu-memory-fraction {fraction:g}" if limited else ""
        remedy = "raise the fraction" if limited else "free memory"
        raise ValueError(
            f"{free_bytes(device) / 2**20:.0f} MiB of free memory on {device}{limit} hold no "
            f"prompt beside the model; {remedy}, lower --limit-worker-concurrency, or load with "
            "--dtype bfloat16"
        )
    return tokens


def _usable_bytes(device: Any, fraction: float | None) -> float:
    """Bytes for the pool and the working memory, after the weights were loaded."""
    free = free_bytes(device)
    if device.type != "cuda":
        return free * _CPU_SHARE
    if fraction is None:
        return free * _GPU_SHARE
    import torch

    _, total = torch.cuda.mem_get_info(device)
    own = total * fraction - torch.cuda.memory_allocated(device)
    return min(own, free * _FREE_SHARE)


def free_bytes(device: Any) -> int:
    """Bytes that this process can still allocate on a torch device."""
    if device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_machine_bytes(), _container_bytes())


def _machine_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(available.split()[1]) * 1024
    except (OSError, StopIteration):
        # No Linux: assume what a small laptop has to spare.
        return 4 * 2**30


def _container_bytes() -> int:
    """What the control group still allows, without bound outside of one."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        return max(0, limit - used)
    except (OSError, ValueError):
        return 2**62
