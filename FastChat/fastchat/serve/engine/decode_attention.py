"""Attention of one new token per row on a CPU, by a C kernel compiled when it is first needed.

PyTorch's attention takes most of a decoding step there: it attends over every row as far as the
longest, under a mask that it first turns into numbers. The kernel reads each row's own tokens once.
Longer pieces of prompts, and machines without a C compiler, have PyTorch's.

Letters: B rows, H key/value heads, G query heads to each of them, T tokens attended over, D and E
sizes of a key and a value.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NAME = "sdpa_decoding_in_c"
"""Among the attention implementations of transformers."""
_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = ("-O3", "-march=native", "-ffast-math", "-fno-finite-math-only", "-fPIC", "-fopenmp")
"""Infinite scores stand for masked tokens, and what is not a number has to stay visible."""


def use(config: Any) -> None:
    """Let a model on a CPU, whose configuration says "sdpa", decode with the kernel."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    config._attn_implementation = NAME


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """(B, P, H x G, E) of queries (B, H x G, P, D) over keys and values, as transformers asks."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    tensors = (query, key, value)
    kernel = None
    if (
        query.shape[2] == 1
        and attention_mask is not None
        and attention_mask.dtype == torch.bool
        and attention_mask.shape[1] == 1
        and others.get("position_bias") is None
        and all(tensor.dtype == query.dtype and tensor.stride(-1) == 1 for tensor in tensors)
    ):
        groups = query.shape[1] // key.shape[1]
        kernel = _kernel(groups, key.shape[-1], value.shape[-1], query.dtype)
    if kernel is None or attention_mask is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
    rows, heads, tokens, size = key.shape
    mask = attention_mask.expand(rows, 1, 1, tokens)
    out = torch.empty(rows, 1, query.shape[1], value.shape[-1], dtype=query.dtype)
    strides = (*query.stride()[:2], *key.stride()[:3], *value.stride()[:3], mask.stride(0))
    kernel(
        *(tensor.data_ptr() for tensor in (*tensors, mask, out)),
        rows,
        heads,
        tokens,
        (ctypes.c_long * len(strides))(*strides),
        size**-0.5 if scaling is None else scaling,
        torch.get_num_threads(),
    )
    return out, None


@lru_cache
def _kernel(
    groups: int, key_size: int, value_size: int, dtype: torch.dtype
) -> Callable[..., None] | None:
    """The kernel for a shape; None where none can be had, which is logged."""
    import torch

    if dtype not in (torch.float32, torch.bfloat16):
        return None
    shape = [f"-DGROUPS={groups}", f"-DSIZE={key_size}", f"-DVALUES={value_size}"]
    if dtype == torch.bfloat16:
        shape.append("-DBF16")
    try:
        return _compiled(shape)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        logging.getLogger(__name__).warning(
            "no compiled attention (%s): PyTorch's is used, which decodes more slowly; a C "
            "compiler that CC names or PATH has as cc makes it faster",
            said[-1] if said else type(error).__name__,
        )
        return None


def _compiled(shape: list[str]) -> Callable[..., None]:
    compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
    with tempfile.TemporaryDirectory() as folder:
        built, library = f"{folder}/kernel.o", f"{folder}/kernel.so"
        for command in (
            [*_FLAGS, *shape, "-c", str(_SOURCE), "-o", built],
            # With PyTorch's own OpenMP: the threads of a second one would fight with its threads.
            ["-shared", built, _openmp(), "-lm", "-o", library],
        ):
            subprocess.run(
                [*compiler.split(), *command],
                check=True,
                capture_output=True,
                text=True,
                timeout=60,
            )
        function = ctypes.CDLL(library).attend
    pointer, long = ctypes.c_void_p, ctypes.c_long
    function.argtypes = [*[pointer] * 5, *[long] * 3, pointer, ctypes.c_float, ctypes.c_int]
    function.restype = None
    kernel: Callable[..., None] = function
    return kernel


def _openmp() -> str:
    """The OpenMP library of this process, which PyTorch has loaded."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    found = re.search(r"/\S*/lib(?:gomp|iomp5|omp)\b[^/\s]*", maps)
    if found is None:
        raise OSError("PyTorch has loaded no OpenMP library")
    return found[0]
