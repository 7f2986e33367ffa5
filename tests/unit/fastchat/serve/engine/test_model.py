"""What attention copies of the cache beside the pool: how much, when, and how much at once.

python -m pytest tests/unit/fastchat/serve/engine/test_model.py
"""

import pytest
import torch
from transformers.integrations import sdpa_attention
from transformers.models.llama import modeling_llama

from fastchat.model.model_adapter import load_model
from fastchat.serve.engine.engine import SlotEngine
from fastchat.serve.engine.kv_pool import KVPool, Span, token_bytes
from fastchat.serve.engine.model import EngineModel
from fastchat.serve.engine.request import EngineRequest, SamplingParams

ROWS = 3


@pytest.fixture
def copies(monkeypatch):
    """The tensors that attention repeats for its query heads, keys and values in turn."""
    seen = []
    repeat = sdpa_attention.repeat_kv

    def repeat_kv(states, groups):
        seen.append(repeat(states, groups))
        return seen[-1]

    for module in (sdpa_attention, modeling_llama):
        monkeypatch.setattr(module, "repeat_kv", repeat_kv)
    return seen


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("width", [1, 4])
def test_the_copies_are_those_that_are_counted(checkpoint, copies, attention, width):
    model = EngineModel(load_model(checkpoint(), device="cpu", attn_implementation=attention))
    shapes = model.layer_shapes()
    pool = KVPool(shapes, ROWS, 64, ROWS * 64, "cpu")
    copies.clear()
    with torch.inference_mode():
        # Unwatched passes go through the compiled kernel, which copies nothing.
        span = Span(0, [20] * ROWS, [width] * ROWS)
        model.forward(pool, span, [[5] * width] * ROWS, watch=lambda hidden: None)
    assert bool(copies) == (width > 1 or attention == "eager")
    assert width > 1 or model.repeats_in_decoding >= bool(copies)
    for keys, values in zip(copies[::2], copies[1::2], strict=True):
        tokens = ROWS * (20 + width)
        assert keys.nbytes + values.nbytes == tokens * model.repeated_bytes(shapes)


def test_transformers_without_packed_queries_copies_when_decoding(model, monkeypatch):
    monkeypatch.setattr(sdpa_attention, "pack_gqa", None, raising=False)
    assert not EngineModel(model).repeats_in_decoding
    monkeypatch.delattr(sdpa_attention, "pack_gqa")
    assert EngineModel(model).repeats_in_decoding


def test_cudnn_which_plans_for_every_shape_computes_no_attention(model):
    torch.backends.cuda.enable_cudnn_sdp(True)
    EngineModel(model)
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_nothing_is_copied_where_every_query_head_has_its_own_keys(checkpoint, monkeypatch):
    model = EngineModel(load_model(checkpoint(), device="cpu"))
    shapes = model.layer_shapes()
    assert model.repeated_bytes(shapes) == 2 * token_bytes(shapes[:1])
    for layer in model.model.model.layers:
        monkeypatch.setattr(layer.self_attn, "num_key_value_groups", 1)
    assert model.repeated_bytes(shapes) == 0


def test_short_pieces_of_many_long_prompts_are_not_attended_over_at_once(
    model, tokenizer, monkeypatch
):
    """Dialogues that go on: nearly all of each prompt is in the pool already."""
    engine = SlotEngine(model, tokenizer, max_rows=8, max_length=256, prefill_tokens=32)
    forward, sizes = engine.model.forward, []

    def measured(pool, span, tokens):
        if span.width > 1:
            sizes.append(len(tokens) * span.end)
        return forward(pool, span, tokens)

    monkeypatch.setattr(engine.model, "forward", measured)
    for grown in ([], [4] * 3):
        for i in range(8):
            prompt = [5 + i] * 200 + grown
            engine.submit(EngineRequest(prompt, SamplingParams(temperature=0.0), 2))
        while engine.step():
            pass
    # 16 tokens for each of a step's 32, so two rows of 203 and not all eight.
    assert max(sizes) == 2 * 203
