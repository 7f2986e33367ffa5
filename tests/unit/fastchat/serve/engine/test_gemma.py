"""The peculiarities of newer Gemma generations: capped scores, norms, two kinds of layers.

python -m pytest tests/unit/fastchat/serve/engine/test_gemma.py
"""

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
)

from fastchat.serve.engine.engine import SlotEngine
from tests.unit.fastchat.serve.engine.test_engine import assert_greedy_equals_generate


def test_greedy_equals_generate_with_capped_scores(tokenizer):
    config = Gemma2Config(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=8,
        initializer_range=0.2,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(config).eval()
    engine = SlotEngine(model, tokenizer, max_rows=4, max_length=128, prefill_tokens=40)
    assert_greedy_equals_generate(engine, model)


def test_greedy_equals_generate_with_norms_and_bases_of_their_own(tokenizer):
    """Gemma 3: queries and keys are normed, sliding layers have another RoPE base."""
    config = Gemma3TextConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    model = Gemma3ForCausalLM(config).eval()
    engine = SlotEngine(model, tokenizer, max_rows=4, max_length=128, prefill_tokens=40)
    assert_greedy_equals_generate(engine, model)
