"""flex_attention for trees: one dtype under autocast, and the proof that its kernels work here.

Letters in shapes: H heads, T tokens of a tree, D numbers of a head.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_torch_flex_attn_available
from transformers.utils.import_utils import is_torch_greater_or_equal

from fastchat.train.prefix_tree.attention import TreeNodes, tree_attention
from fastchat.train.prefix_tree.trie import TokenTree, build_tree
from fastchat.utils import first_line

FLEX = "flex_attention"
FLEX_BLOCK = 128
"""Tokens by which flex_attention's block masks are divided; layouts are padded to a multiple."""

TOLERANCE = 0.05
"""Relative difference that bfloat16 may make; a wrong tree makes about 1."""


def flex_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, *more: Any, **others: Any
) -> tuple[Tensor, Tensor | None]:
    """Transformers' flex_attention with queries, keys and values of one dtype.

    Under autocast the rotation leaves queries and keys in float32 beside values in bfloat16, which
    older releases of torch refuse. Arguments as for `tree_attention`.
    """
    from transformers.integrations.flex_attention import flex_attention_forward

    device = query.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    return flex_attention_forward(module, query, key, value, *more, **others)


def flex_problem(config: Any, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why trees of this model are not computed with flex_attention here; None if they can be.

    Its kernels are compiled for the GPU, the dtype and the size of the heads at hand, forward and
    backward, and not every combination works. So one layer's attention over trees of several blocks
    is compared with torch's own, gradients included. From the second length on the kernels are
    those for any length, which training has.
    """
    if not (is_torch_flex_attn_available() and is_torch_greater_or_equal("2.7")):
        # transformers compiles 2.6's for every length by itself, and after eight of them torch
        # goes on without its kernels, with all scores in memory.
        return "it needs torch 2.7 or newer"
    if getattr(config, "attention_dropout", 0):
        return "it cannot drop attention weights"
    try:
        # After eight versions torch goes on without its kernels. One each is for lengths of one
        # block and of more, layers with a window and without, gradients and none.
        torch._dynamo.config.recompile_limit = 64
        errors = [_error_of_one_layer(_sample_tree(n), config, device, dtype) for n in (112, 240)]
    except Exception as failure:  # whatever the compiler and the driver raise
        said = f"{type(failure).__name__}: {first_line(failure)[:200]}"
        return f"it fails on this machine ({said})"
    # Not "above": what is not a number is no proof either.
    wrong = [error for error in errors if not error < TOLERANCE]
    return f"it is wrong by {wrong[0]:.2g} on this machine" if wrong else None


def _error_of_one_layer(
    tree: TokenTree, config: Any, device: torch.device, dtype: torch.dtype
) -> float:
    """The largest relative difference (norms) of output and gradients to `tree_attention`."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    few = getattr(config, "num_key_value_heads", None) or heads
    draw = torch.Generator().manual_seed(0)
    # Laid out in memory as models have them: torch compiles anew for others.
    query, key, value = (
        torch.randn(1, len(tree.tokens), count, size, generator=draw)
        .to(device, dtype)
        .transpose(1, 2)
        .requires_grad_()
        for count in (heads, few, few)
    )
    inputs = (query, key, value)
    depths, ends = (torch.from_numpy(one).to(device) for one in (tree.depths, tree.ends))
    window = getattr(config, "sliding_window", None)
    layer = torch.nn.Module()  # in training mode, with nothing of its own
    found, _ = flex_attention(layer, query, key, value, block_mask(depths, ends, window))
    nodes = TreeNodes(tree.nodes)
    expected, _ = tree_attention(layer, query, key, value, None, sliding_window=window, tree=nodes)
    weights = torch.randn(found.shape, generator=draw).to(device, dtype)
    pairs = zip(
        (found, *torch.autograd.grad((found * weights).sum(), inputs)),
        (expected, *torch.autograd.grad((expected * weights).sum(), inputs)),
        strict=True,
    )
    errors = [(own.float() - other.float()).norm() / other.float().norm() for own, other in pairs]
    return torch.stack(errors).max().item()  # unlike Python's, not a number if one of them is none


def _sample_tree(branch: int) -> TokenTree:
    """Blocks: two rows of so many tokens on a stem that is longer than one, and one beside them."""
    stem = list(range(FLEX_BLOCK + 32))
    rows = [[*stem, *range(first, first + branch)] for first in (1000, 2000)]
    return build_tree([*rows, list(range(3000, 3128))])


ALL_ATTENTION_FUNCTIONS.register(FLEX, flex_attention)


def block_mask(depths: Tensor, ends: Tensor, window: int | None) -> Any:
    """`tree_rule` as a block mask of flex_attention."""
    from torch.nn.attention.flex_attention import create_block_mask

    size = len(depths)
    return create_block_mask(tree_rule(depths, ends, window), None, None, size, size, depths.device)


def tree_rule(depths: Tensor, ends: Tensor, window: int | None) -> Any:
    """Whether a query sees a key; `depths` and `ends` are a `TokenTree`'s, `window` in tokens."""

    def sees(batch: Any, head: Any, query: Any, key: Any) -> Any:
        visible = (key <= query) & (query < ends[key])
        if window is not None:
            visible = visible & (depths[query] - depths[key] < window)
        return visible

    return sees
