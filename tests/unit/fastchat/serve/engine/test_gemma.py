"""The peculiarities of newer Gemma generations: capped scores, norms, two kinds of layers.

python -m pytest tests/unit/fastchat/serve/engine/test_gemma.py
"""

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
)

from fastchat.serve.engine.engine import SlotEngine
from tests.unit.fastchat.serve.engine.test_engine import assert_greedy_equals_generate

SIZES = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 8}
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]


@pytest.mark.parametrize(
    "build",
    [
        lambda: Gemma2ForCausalLM(
            Gemma2Config(
                **SIZES, num_hidden_layers=2, initializer_range=0.2, attn_implementation="eager"
            )
        ),
        # Queries and keys are normed, sliding layers have another RoPE base.
        lambda: Gemma3ForCausalLM(
            Gemma3TextConfig(
                **SIZES, num_hidden_layers=3, initializer_range=0.2, layer_types=LAYERS
            )
        ),
    ],
    ids=["Gemma 2", "Gemma 3"],
)
def test_greedy_equals_generate(tokenizer, build):
    torch.manual_seed(0)
    model = build().eval()
    engine = SlotEngine(model, tokenizer, max_rows=4, max_length=128, prefill_tokens=40)
    assert_greedy_equals_generate(engine, model)
