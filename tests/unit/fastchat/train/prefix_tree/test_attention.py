"""Attention over a tree, and the models in which it is exact.

python -m pytest tests/unit/fastchat/train/prefix_tree/test_attention.py
"""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, Gemma2Config

from fastchat.train.prefix_tree.attention import SEGMENTS, TreeNodes, tree_attention
from fastchat.train.prefix_tree.flex import FLEX, TOLERANCE, tree_rule
from fastchat.train.prefix_tree.model import tree_error, use_trees
from fastchat.train.prefix_tree.trie import build_tree
from tests.support.tiny import tiny_config

CPU = torch.device("cpu")
ROWS = [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 9, 9], [8, 8], [1, 2], [1, 2, 3, 4, 5, 6, 8]]


def visible(tree, window):
    """Which token sees which, (T, T), read off the rows."""
    mask = torch.zeros(len(tree.tokens), len(tree.tokens), dtype=torch.bool)
    for path in tree.paths:
        for place, token in enumerate(path):
            first = 0 if window is None else max(0, place - window + 1)
            mask[token, path[first : place + 1].tolist()] = True
    return mask


@pytest.mark.parametrize("window", [None, 1, 3, 5, 100])
def test_output_and_gradient_equal_those_of_a_dense_mask(window):
    tree = build_tree(ROWS)
    torch.manual_seed(0)
    shapes = [(1, heads, len(tree.tokens), 8) for heads in (4, 2, 2)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    query, key, value = inputs
    nodes = TreeNodes(tree.nodes)
    found, _ = tree_attention(None, *inputs, None, scaling=0.3, sliding_window=window, tree=nodes)
    expected = scaled_dot_product_attention(
        query,
        key.repeat_interleave(2, 1),
        value.repeat_interleave(2, 1),
        attn_mask=visible(tree, window),
        scale=0.3,
    ).transpose(1, 2)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(found)
    for own, other in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        assert torch.allclose(own, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [None, 3])
def test_without_a_tree_it_is_plain_causal_attention(window):
    query, key, value = torch.randn(3, 2, 4, 9, 8).unbind()
    found, _ = tree_attention(None, query, key, value, None, sliding_window=window)
    mask = torch.ones(9, 9, dtype=torch.bool).tril()
    mask = mask if window is None else mask.triu(1 - window)
    expected = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert torch.allclose(found, expected.transpose(1, 2), atol=1e-6)


@pytest.mark.parametrize("window", [None, 3])
def test_the_block_mask_of_flex_attention_states_the_same_rule(window):
    from torch.nn.attention.flex_attention import create_mask

    tree = build_tree(ROWS)
    size = len(tree.tokens)
    rule = tree_rule(torch.from_numpy(tree.depths), torch.from_numpy(tree.ends), window)
    assert torch.equal(create_mask(rule, 1, 1, size, size, "cpu")[0, 0], visible(tree, window))


def test_what_it_cannot_do_is_an_error():
    query, key, value = torch.randn(3, 1, 2, 4, 8).unbind()
    with pytest.raises(ValueError, match="cannot do softcap"):
        tree_attention(None, query, key, value, None, softcap=30.0)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma"])
def test_known_families_are_trained_on_trees_and_pass_the_check(family):
    model = AutoModelForCausalLM.from_config(tiny_config(family))
    assert use_trees(model, None, 512, CPU) == "batching: prefix trees"
    assert model.config._attn_implementation == SEGMENTS
    assert tree_error(model, model, CPU) < 1e-4
    assert model.config._attn_implementation == SEGMENTS


def test_the_check_notices_a_model_that_does_not_follow_the_tree(monkeypatch):
    model = AutoModelForCausalLM.from_config(tiny_config())
    use_trees(model, None, 512, CPU)
    monkeypatch.setattr(
        "fastchat.train.prefix_tree.model.attention_inputs", lambda model, inputs: {}
    )
    assert tree_error(model, model, CPU) > TOLERANCE


def test_capped_scores_and_untested_windows_fall_back_with_a_reason():
    capped = AutoModelForCausalLM.from_config(
        Gemma2Config(**tiny_config("llama").to_dict() | {"model_type": "gemma2"})
    )
    before = capped.config._attn_implementation
    assert use_trees(capped, None, 512, CPU) == (
        "batching: padded, since its attention scores are capped"
    )
    assert capped.config._attn_implementation == before
    windowed = AutoModelForCausalLM.from_config(tiny_config())
    windowed.config.sliding_window = 16
    assert "sliding windows of llama are not tested" in use_trees(windowed, None, 512, CPU)
    assert use_trees(windowed, None, 16, CPU) == "batching: prefix trees"


def test_attention_code_that_was_asked_for_is_kept():
    model = AutoModelForCausalLM.from_config(tiny_config(), attn_implementation="eager")
    assert use_trees(model, "eager", 512, CPU) == (
        "batching: padded, since --attn_implementation eager has no trees"
    )
    assert model.config._attn_implementation == "eager"
    assert use_trees(model, FLEX, 512, CPU) == "batching: prefix trees"


@pytest.mark.parametrize(("problem", "attention"), [(None, FLEX), ("it fails", SEGMENTS)])
def test_flex_attention_is_taken_on_a_gpu_where_it_works(problem, attention, monkeypatch):
    monkeypatch.setattr("fastchat.train.prefix_tree.model.flex_problem", lambda *asked: problem)
    model = AutoModelForCausalLM.from_config(tiny_config())
    said = use_trees(model, None, 512, torch.device("cuda"))
    assert model.config._attn_implementation == attention
    assert said == "batching: prefix trees" + (
        f", without flex_attention, since {problem}" if problem else ""
    )


def test_a_model_without_code_for_flex_attention_is_trained_without_it(monkeypatch):
    model = AutoModelForCausalLM.from_config(tiny_config())
    monkeypatch.setattr(type(model), "_supports_flex_attn", False)
    said = use_trees(model, None, 512, torch.device("cuda"))
    assert said.endswith("without flex_attention, since LlamaForCausalLM has no code for it")
    assert model.config._attn_implementation == SEGMENTS
