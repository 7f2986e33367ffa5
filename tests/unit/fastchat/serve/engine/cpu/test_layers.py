"""The layers of kernel.c against the modules of transformers, over the same cache."""

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from fastchat.serve.engine.cpu.kernel import kernel
from fastchat.serve.engine.cpu.layers import compiled_layers
from fastchat.serve.engine.kv_pool import KVPool, Span
from fastchat.serve.engine.model import EngineModel
from tests.support.tiny import tiny_config

needs_compiler = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
STARTS = [0, 1, 40, 63, 64, 65, 127]
ONE_EACH = [1] * 7
PIECES = [70, 1, 33, 64, 2, 20, 1]
ODD_TOKEN = 250


def tiny(family="llama", dtype=torch.float32, **changes):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family, **changes), dtype=dtype).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or "bias" in name:
                weight += torch.randn_like(weight) / 2
    return model


def both(model, counts=ONE_EACH, first=2):
    """Logits and the pool after new tokens of rows: compiled, and by the modules."""
    engine = EngineModel(model)
    assert engine._compiled is not None
    found = []
    for compiled in (engine._compiled, None):
        engine._compiled = compiled
        torch.manual_seed(1)
        pool = KVPool(engine.layer_shapes(), 10, 128, 1280, "cpu")
        for cache in (*pool.keys, *pool.values):
            cache.copy_(torch.randn(cache.shape))
        span = Span(first, STARTS[: len(counts)], list(counts))
        tokens = [torch.randint(ODD_TOKEN, (count,)).tolist() for count in counts]
        tokens[-1][-1] = ODD_TOKEN
        with torch.inference_mode():
            logits = engine.forward(pool, span, tokens)
        found.append((logits.float(), torch.stack([*pool.keys, *pool.values]).float()))
    return found


def off(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


@needs_compiler
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True, "vocab_size": 397, "intermediate_size": 83}),
        ("llama", {"head_dim": 64, "hidden_size": 4200, "initializer_range": 0.01}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
        ("mistral", {}),
        ("mistral", {"sliding_window": None}),
        ("qwen2", {}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
        ("qwen3", {"head_dim": 80, "num_key_value_heads": 4}),
    ],
)
@pytest.mark.parametrize(
    ("dtype", "counts", "error"),
    [
        (torch.float32, ONE_EACH, 5e-5),
        (torch.float32, PIECES, 5e-5),
        (torch.bfloat16, PIECES, 0.03),
    ],
)
def test_equals_the_modules(family, changes, dtype, counts, error):
    (logits, cache), (expected, written) = both(tiny(family, dtype, **changes), counts)
    assert logits.shape == expected.shape
    assert off(logits, expected) < error
    assert off(cache, written) < error / 2


@needs_compiler
@pytest.mark.parametrize("rows", [1, 5, 6])
def test_any_number_of_rows_and_of_threads(rows):
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            (logits, _), (expected, _) = both(tiny(), ONE_EACH[:rows])
            assert off(logits, expected) < 1e-5
    finally:
        torch.set_num_threads(threads)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_stays_in_its_row(dtype):
    model = tiny(dtype=dtype)
    with torch.no_grad():
        model.get_input_embeddings().weight[ODD_TOKEN] = float("nan")
    (logits, _), _ = both(model)
    assert logits[-1].isnan().all()
    assert logits[:-1].isfinite().all()


@needs_compiler
def test_large_gates_do_not_overflow():
    model = tiny()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate_proj.weight *= 3000
            layer.mlp.down_proj.weight /= 3000
    (logits, _), (expected, _) = both(model)
    assert logits.isfinite().all() and off(logits, expected) < 1e-5


def test_other_models_go_through_their_modules():
    gelu = tiny(hidden_act="gelu")
    strided = tiny()
    weight = strided.model.layers[1].mlp.up_proj.weight
    weight.data = weight.data.T.contiguous().T
    mixed = tiny()
    mixed.model.norm.bfloat16()
    from peft import LoraConfig, inject_adapter_in_model

    adapted = inject_adapter_in_model(LoraConfig(target_modules=["q_proj"]), tiny())
    for model in (gelu, strided, mixed, adapted, tiny("gemma"), tiny(dtype=torch.float16)):
        assert compiled_layers(model.base_model, model.get_output_embeddings()) is None


def test_without_a_compiler_the_modules_decode(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    kernel.cache_clear()
    try:
        assert EngineModel(tiny())._compiled is None
    finally:
        kernel.cache_clear()
