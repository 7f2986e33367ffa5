"""How many tokens of keys and values fit into the free memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastchat.serve.kv_pool import LayerShape

_GPU_SHARE = 0.85
_CPU_SHARE = 0.3
_LOGIT_COPIES = 6
"""Float32 tensors of the size of the logits that sampling holds at its peak."""
_LEAST_TOKENS = 64


def token_bytes(shapes: Sequence[LayerShape]) -> int:
    """Bytes that one token takes in the caches of all layers."""
    return sum(
        shape.heads * (shape.key_size + shape.value_size) * shape.dtype.itemsize for shape in shapes
    )


def affordable_tokens(
    shapes: Sequence[LayerShape], device: Any, max_rows: int, vocabulary: int
) -> int:
    """Tokens that the free memory holds beside the working memory of `max_rows` rows.

    Raises:
        ValueError: not even a short prompt fits.
    """
    free = free_bytes(device)
    share = _GPU_SHARE if device.type == "cuda" else _CPU_SHARE
    working = max_rows * vocabulary * 4 * _LOGIT_COPIES
    tokens = int((free * share - working) // token_bytes(shapes))
    if tokens < _LEAST_TOKENS:
        raise ValueError(
            f"{free / 2**20:.0f} MiB of free memory on {device} hold no prompt beside the model; "
            "free memory, lower --limit-worker-concurrency, or load with --dtype bfloat16"
        )
    return tokens


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
