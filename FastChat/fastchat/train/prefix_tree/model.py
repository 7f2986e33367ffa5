"""Prefix trees in a model: where they are exact, with which attention code, and the proof.

Letters in shapes: T tokens of a tree.
"""

from typing import Any

import numpy as np
import torch

from fastchat.train.prefix_tree.attention import SEGMENTS, TreeNodes
from fastchat.train.prefix_tree.flex import FLEX, FLEX_BLOCK, block_mask, flex_problem
from fastchat.train.prefix_tree.trie import TokenTree, build_tree

SAMPLE = 300
"""Tokens of the longest row of the small tree that is compared with its rows: several blocks."""

KNOWN_LAYERS = {"full_attention", "sliding_attention"}
WINDOWED = {"mistral", "qwen2", "qwen3", "gemma3_text"}
"""Model types that tell their attention code of their sliding window, which is tested."""


def can_use_trees(attention: str) -> bool:
    return attention in (SEGMENTS, FLEX)


def use_trees(
    model: Any,
    asked: str | None,
    longest: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Give a model attention code for trees, if its rows can share their prefixes exactly.

    Attention code that was `asked` for is kept. Every process has to call this. Returns what the
    run does and why, in one line.
    """
    if asked is None:
        obstacle = tree_obstacle(model, longest)
        if obstacle is None and device.type == "cuda":
            config = model.config.get_text_config(decoder=True)
            problem: str | None = f"{type(model).__name__} has no code for it"
            if model._supports_flex_attn:
                problem = _agreed(flex_problem(config, device, dtype), device)
            model.set_attn_implementation(SEGMENTS if problem else FLEX)
            without = f", without {FLEX}, since {problem}" if problem else ""
            return f"batching: prefix trees{without}"
        if obstacle is None:
            model.set_attn_implementation(SEGMENTS)
    else:
        obstacle = None if can_use_trees(asked) else f"--attn_implementation {asked} has no trees"
    return f"batching: {f'padded, since {obstacle}' if obstacle else 'prefix trees'}"


def _agreed(problem: str | None, device: torch.device) -> str | None:
    if not torch.distributed.is_initialized():
        return problem
    count = torch.tensor(float(problem is not None), device=device)
    torch.distributed.all_reduce(count)
    return problem or ("another process has a problem with it" if count.item() else None)


def tree_obstacle(model: Any, longest: int) -> str | None:
    """Why rows of up to `longest` tokens cannot share their prefixes exactly; None if they can."""
    config = model.config.get_text_config(decoder=True)
    if not getattr(model, "_supports_attention_backend", False):
        return f"{type(model).__name__} does not take attention code from outside"
    if unknown := set(getattr(config, "layer_types", None) or ()) - KNOWN_LAYERS:
        return f"its layers are {', '.join(sorted(unknown))}"
    if getattr(config, "attn_logit_softcapping", None):
        return "its attention scores are capped"
    window = getattr(config, "sliding_window", None)
    if window and window < longest and config.model_type not in WINDOWED:
        return f"sliding windows of {config.model_type} are not tested"
    return None


def tree_inputs(tree: TokenTree, multiple: int = 1) -> dict[str, Any]:
    """A tree as a model's inputs, filled up to a multiple of so many tokens.

    `input_ids` and `position_ids`, int64 (1, T); `ends`, int64 (T,), see `TokenTree`; and `tree`,
    its nodes, without what was filled up.
    """
    size = len(tree.tokens)
    fill = -size % multiple
    # A token that fills up is a row of its own: nothing sees it, and it sees nothing else.
    alone = np.arange(size + 1, size + fill + 1)
    columns = (
        np.pad(tree.tokens, (0, fill)),
        np.pad(tree.depths, (0, fill)),
        np.concatenate([tree.ends, alone]),
    )
    ids, depths, ends = map(torch.from_numpy, columns)
    return {
        "input_ids": ids[None],
        "position_ids": depths[None],
        "ends": ends,
        "tree": TreeNodes(tree.nodes),
    }


def attention_inputs(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """What a model without wrappers needs beside the ids and positions to compute a tree."""
    config = model.config.get_text_config(decoder=True)
    if config._attn_implementation == SEGMENTS:
        return {"tree": inputs["tree"]}
    depths, ends = inputs["position_ids"][0], inputs["ends"]
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    masks = {
        "full_attention": block_mask(depths, ends, None),
        "sliding_attention": window and block_mask(depths, ends, window),
    }
    if kinds:
        return {"attention_mask": masks}
    return {"attention_mask": masks["sliding_attention"] or masks["full_attention"]}


@torch.no_grad()
def tree_error(model: torch.nn.Module, plain: Any, device: torch.device) -> float:
    """How much the logits of a small tree differ from those of its rows one by one.

    `plain` is the model without the wrappers of DeepSpeed or DDP; every process has to call this.
    Returns the largest relative difference (norms over a row), with transformers' own attention for
    the rows. Rounding in bfloat16 makes less than `TOLERANCE`.
    """
    context = getattr(plain.config.get_text_config(decoder=True), "max_position_embeddings", SAMPLE)
    rows = _sample_rows(plain.get_input_embeddings().num_embeddings, min(context, SAMPLE))
    tree, attention, training = build_tree(rows), plain.config._attn_implementation, model.training
    inputs = tree_inputs(tree, FLEX_BLOCK if attention == FLEX else 1)
    for name in ("input_ids", "position_ids", "ends"):
        inputs[name] = inputs[name].to(device)
    model.eval()
    ids, depths = inputs["input_ids"], inputs["position_ids"]
    more = attention_inputs(plain, inputs)
    found = model(input_ids=ids, position_ids=depths, use_cache=False, **more).logits[0].float()
    plain.set_attn_implementation("sdpa")
    errors = []
    for row, path in zip(rows, tree.paths, strict=True):
        alone = model(input_ids=torch.tensor([row], device=device), use_cache=False).logits[0]
        shared = found[torch.from_numpy(path).to(device)]
        errors.append(((shared - alone.float()).norm() / alone.float().norm()).item())
    plain.set_attn_implementation(attention)
    model.train(training)
    return max(errors)


def _sample_rows(vocabulary: int, longest: int) -> list[list[int]]:
    """Two rows that branch off the same beginning, and one that ends before the branch."""
    branch = max(1, longest // 3)
    stem = [(7 * i + 3) % vocabulary for i in range(longest - branch)]
    rows = [[*stem, *((11 * i + k) % vocabulary for i in range(branch))] for k in (1, 2)]
    return [*rows, stem[: max(1, 3 * len(stem) // 4)]]
