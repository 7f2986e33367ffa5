"""Attention of one new token per row on a CPU, by a C kernel compiled when it is first needed.

PyTorch's attention takes most of a decoding step there: it attends over every row as far as the
longest, under a mask that it first turns into numbers. The kernel reads each row's own tokens once.
Longer pieces of prompts, and machines without a C compiler, have PyTorch's.

Letters: B rows, H key/value heads, G query heads to each of them, T tokens attended over, D and E
sizes of a key and a value.
"""

import ctypes
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from fastchat.serve.engine.cpu.kernel import kernel

NAME = "sdpa_decoding_in_c"
"""Among the attention implementations of transformers."""


def use(config: Any) -> None:
    """Let a model on a CPU, whose configuration says "sdpa", decode with the kernel."""
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
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    tensors = (query, key, value)
    library = None
    if (
        query.shape[2] == 1
        and attention_mask is not None
        and attention_mask.dtype == torch.bool
        and attention_mask.shape[1] == 1
        and others.get("position_bias") is None
        and all(tensor.dtype == query.dtype and tensor.stride(-1) == 1 for tensor in tensors)
    ):
        groups = query.shape[1] // key.shape[1]
        library = kernel(groups, key.shape[-1], value.shape[-1], query.dtype)
    if library is None or attention_mask is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
    rows, heads, tokens, size = key.shape
    mask = attention_mask.expand(rows, 1, 1, tokens)
    out = torch.empty(rows, 1, query.shape[1], value.shape[-1], dtype=query.dtype)
    strides = (*query.stride()[:2], *key.stride()[:3], *value.stride()[:3], mask.stride(0))
    library.attend(
        *(tensor.data_ptr() for tensor in (*tensors, mask, out)),
        rows,
        heads,
        tokens,
        (ctypes.c_long * len(strides))(*strides),
        size**-0.5 if scaling is None else scaling,
        torch.get_num_threads(),
    )
    return out, None
