"""Attention over a `TokenTree`, as `prefix_tree` in transformers' attention interface.

It calls torch's own attention once for every node of the tree: on any device, with any gradient.
A sliding window is counted in positions of the row, not of the layout.

Letters in shapes: B rows, H heads, T tokens, D numbers of a head.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from fastchat.train.prefix_tree.trie import Node

SEGMENTS = "prefix_tree"
UNSUPPORTED = ("softcap", "s_aux", "position_bias")
"""What an architecture may ask of its attention code and this one does not do."""


class TreeNodes:
    """The nodes of a tree as attention needs them; masks are made once for all layers."""

    def __init__(self, nodes: tuple[Node, ...]):
        self.nodes = nodes
        self.sizes = [node.stop - node.start for node in nodes]
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}

    def mask(self, number: int, window: int | None, device: torch.device) -> Tensor | None:
        """What the tokens of a node see of its row up to them: bool (own, above + own).

        None stands for the plain causal rule, for which attention has faster code.
        """
        above = sum(self.sizes[ancestor] for ancestor in self.nodes[number].ancestors)
        own = self.sizes[number]
        near = window if window is not None and above + own > window else None
        if not above and near is None:
            return None
        key = (own, above, near)
        if key not in self._masks:
            mask = torch.ones(own, above + own, dtype=torch.bool, device=device).tril(above)
            self._masks[key] = mask if near is None else mask.triu(above - near + 1)
        return self._masks[key]


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    tree: TreeNodes | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention in which every node sees itself, causally, and its ancestors.

    `query` is (B, H, T, D); `key` and `value` may have fewer heads (grouped queries). The rule is
    the tree's (None: one node), not the mask's. `sliding_window` counts tokens of a row, the own
    one included. Returns (B, T, H, D) and no attention weights.
    """
    asked = [name for name in UNSUPPORTED if others.get(name) is not None]
    if asked:
        raise ValueError(f"--attn_implementation {SEGMENTS} cannot do {asked[0]}: use sdpa")
    tree = tree or TreeNodes((Node(0, query.shape[2], ()),))
    if (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    queries, keys, values = (part.split(tree.sizes, dim=2) for part in (query, key, value))
    outputs = []
    for number, node in enumerate(tree.nodes):
        mask = tree.mask(number, sliding_window, query.device)
        row = (*node.ancestors, number)
        outputs.append(
            scaled_dot_product_attention(
                queries[number],
                torch.cat([keys[i] for i in row], dim=2) if node.ancestors else keys[number],
                torch.cat([values[i] for i in row], dim=2) if node.ancestors else values[number],
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=mask is None,
                scale=scaling,
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(SEGMENTS, tree_attention)
