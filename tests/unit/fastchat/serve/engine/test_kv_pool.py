"""The pool's slots: their sizes, their contents, and which models and memories they suit.

python -m pytest tests/unit/fastchat/serve/engine/test_kv_pool.py
"""

import resource
from pathlib import Path

import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM

from fastchat.serve.engine import kv_pool
from fastchat.serve.engine.engine import SlotEngine
from fastchat.serve.engine.kv_pool import KVPool, LayerShape, PoolCache, Span, affordable_tokens
from fastchat.serve.engine.model import EngineModel

SHAPES = [LayerShape(heads=2, key_size=3, value_size=5, dtype=torch.float32)] * 2


def filled_pool(**sizes):
    """A pool whose every number tells its slot, head and place."""
    pool = KVPool(SHAPES, device="cpu", **sizes)
    for cache in (*pool.keys, *pool.values):
        slots, heads, places, _ = cache.shape
        cache += 1000 * torch.arange(slots)[:, None, None, None]
        cache += 100 * torch.arange(heads)[:, None, None]
        cache += torch.arange(places)[:, None] / 1000
    return pool


def test_slots_share_the_memory_whatever_their_length():
    pool = KVPool(SHAPES, max_rows=8, max_length=1000, tokens=2048, device="cpu")
    assert (pool.rows, pool.length) == (8, 256)
    assert [pool.slot_length(n) for n in (1, 128, 129, 200, 300, 999)] == [
        128,
        128,
        192,
        256,
        384,
        1000,
    ]
    for length in (128, 384, 1000):
        pool.reshape(length, slots=[], filled=0)
        assert pool.rows == min(8, 2048 // length)
        assert pool.values[1].shape == (pool.rows, 2, length, 5)


def test_no_slot_is_longer_than_the_memory():
    pool = KVPool(SHAPES, max_rows=8, max_length=4096, tokens=300, device="cpu")
    assert pool.max_length == 300
    assert pool.rows_at(pool.slot_length(300)) == 1


def test_a_new_length_keeps_and_gathers_what_the_slots_hold():
    pool = filled_pool(max_rows=6, max_length=512, tokens=768)
    before = [cache[:2, :, :90].clone() for cache in (*pool.keys, *pool.values)]
    for length in (384, 128, 256):
        pool.reshape(length, slots=[0, 1], filled=90)
        for cache, expected in zip((*pool.keys, *pool.values), before, strict=True):
            assert torch.equal(cache[:2, :, :90], expected)
    pool = filled_pool(max_rows=6, max_length=512, tokens=768)
    pool.reshape(192, slots=[4, 1, 5], filled=100)
    for cache in (*pool.keys, *pool.values):
        assert (cache[:3, 0, 99, 0] // 1000).tolist() == [4, 1, 5]


def test_slots_move_together_even_in_a_circle():
    pool = filled_pool(max_rows=4, max_length=128, tokens=512)
    pool.move([0, 1, 2, 0], [1, 2, 0, 3], filled=50)
    for cache in (*pool.keys, *pool.values):
        assert (cache[:, 0, 20, 0] // 1000).tolist() == [2, 0, 1, 0]
        assert (cache[:, 0, 60, 0] // 1000).tolist() == [0, 1, 2, 3]
    pool.clear(1)
    assert not pool.keys[0][1].any() and pool.keys[0][2].any()


def test_padding_is_never_written():
    pool = filled_pool(max_rows=3, max_length=128, tokens=384)
    untouched = [cache.clone() for cache in (pool.keys[0], pool.values[0])]
    span = Span(first=1, starts=[126, 4], counts=[2, 5])
    new = [torch.full((2, 2, 5, size), -1.0) for size in (3, 5)]
    seen = PoolCache(pool, span).update(*new, 0)
    for cache, before, view in zip((pool.keys[0], pool.values[0]), untouched, seen, strict=True):
        written = cache != before
        assert written[1, :, 126:].all() and written[2, :, 4:9].all()
        assert written.sum() == (2 + 5) * 2 * cache.shape[-1]
        assert torch.equal(view, cache[1:3, :, :128])


def test_models_that_the_pool_gets_wrong_are_refused(tokenizer):
    config = GraniteConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        logits_scaling=8.0,
    )
    with pytest.raises(ValueError, match="is not served"):
        SlotEngine(GraniteForCausalLM(config).eval(), tokenizer, max_length=64)


def free_for(monkeypatch, model, tokenizer, rows):
    """Let memory be free for 500 tokens and the copies of one layer that attention makes of them.

    The tiny model has two layers and two query heads per key head: the copies of one layer are as
    large as the cache.
    """
    per_token = 2 * kv_pool.token_bytes(SlotEngine(model, tokenizer).model.layer_shapes())
    working = rows * model.config.vocab_size * 4 * 6
    monkeypatch.setattr(kv_pool, "free_bytes", lambda _: (working + 500.5 * per_token) / 0.3)


def test_the_pool_takes_what_the_memory_gives(model, tokenizer, monkeypatch):
    free_for(monkeypatch, model, tokenizer, 4)
    engine = SlotEngine(model, tokenizer, max_rows=4, max_length=2048)
    assert engine.max_length == 500
    monkeypatch.setattr(kv_pool, "free_bytes", lambda _: 1000)
    with pytest.raises(ValueError, match="free memory"):
        SlotEngine(model, tokenizer)


def test_the_pool_leaves_room_for_what_attention_copies_when_decoding(
    model, tokenizer, monkeypatch
):
    free_for(monkeypatch, model, tokenizer, 20)
    options = {"max_rows": 20, "max_length": 40, "prefill_tokens": 5}
    # Prompts of one step attend over 80 tokens at most, decoding rows over whatever there is.
    monkeypatch.setattr(EngineModel, "repeats_in_decoding", False)
    assert SlotEngine(model, tokenizer, **options).pool.tokens == 921
    monkeypatch.setattr(EngineModel, "repeats_in_decoding", True)
    assert SlotEngine(model, tokenizer, **options).pool.tokens == 500


class Gpu:
    """What CUDA says of the memory of a GPU to each of the processes that share it."""

    def __init__(self, monkeypatch):
        self.total = self.free = 1_000_000
        self.own = 0
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (self.free, self.total))
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: self.own)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: self.own)

    def start_worker(self, weights, fraction):
        """Load weights and take a pool; returns the bytes of the pool."""
        assert weights <= self.free, "out of memory"
        self.own = weights
        self.free -= weights
        tokens = kv_pool.affordable_tokens(SHAPES, torch.device("cuda"), 1, 10, fraction)
        pool = tokens * kv_pool.token_bytes(SHAPES)
        self.free -= pool
        return pool


def test_workers_with_a_fraction_each_share_a_gpu_and_one_too_small_is_named(monkeypatch):
    alone = Gpu(monkeypatch)
    assert alone.start_worker(200_000, None) == pytest.approx(0.85 * 800_000, rel=0.01)
    with pytest.raises(AssertionError, match="out of memory"):
        alone.start_worker(200_000, None)
    shared = Gpu(monkeypatch)
    pools = [shared.start_worker(200_000, 0.425) for _ in range(2)]
    assert pools == pytest.approx([225_000] * 2, rel=0.01)
    gpu = Gpu(monkeypatch)
    gpu.free = 300_000
    assert gpu.start_worker(200_000, 0.9) == pytest.approx(95_000, rel=0.01)
    with pytest.raises(ValueError, match=r"fraction 0\.2 hold no prompt .*raise the fraction"):
        Gpu(monkeypatch).start_worker(200_000, 0.2)


def test_memory_on_a_cpu_is_taken_only_as_it_is_written():
    shapes = [LayerShape(heads=8, key_size=64, value_size=64, dtype=torch.float32)] * 4
    before = _resident_bytes()
    pool = KVPool(shapes, 16, 2**14, tokens=2**18, device=torch.device("cpu"))
    assert sum(flat.nbytes for pair in pool._flat for flat in pair) == 2**32
    pool.keys[0][3, 2, 100] = 1.0
    assert _resident_bytes() - before < 2**26
    assert pool.keys[0][3, 2, 100, 0] == 1 and pool.keys[0][0, 0].sum() == 0


def test_the_limit_of_keys_and_values_is_kept_and_named_when_it_is_too_small():
    shapes = [LayerShape(heads=2, key_size=8, value_size=8, dtype=torch.float32)]
    cpu, token = torch.device("cpu"), 2 * 16 * 4
    assert affordable_tokens(shapes, cpu, 4, 100, limit=1000 * token) == 1000
    with pytest.raises(ValueError, match=r"--kv-memory of 1280 bytes holds 10 tokens; give 8192"):
        affordable_tokens(shapes, cpu, 4, 100, limit=10 * token)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
