"""Compiled attention of decoding against PyTorch's, and machines that cannot compile it."""

import logging
import shutil
from types import SimpleNamespace

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from fastchat.serve.engine.cpu.attention import attention
from fastchat.serve.engine.cpu.kernel import kernel


@pytest.fixture
def fresh():
    kernel.cache_clear()
    yield
    kernel.cache_clear()


def inputs(heads, groups, size, dtype, value_size=None, rows=5, tokens=150):
    """Slices of a longer cache, as the pool hands them out."""
    torch.manual_seed(0)
    query = torch.randn(rows, 1, heads * groups, size).to(dtype).transpose(1, 2)
    key = torch.randn(rows + 2, heads, 200, size).to(dtype)[1 : rows + 1, :, :tokens]
    value = torch.randn(rows + 2, heads, 200, value_size or size).to(dtype)[
        1 : rows + 1, :, :tokens
    ]
    ends = torch.tensor([1, 63, 64, 65, tokens])[:rows, None]
    mask = (torch.arange(tokens) < ends)[:, None, None]
    return query, key, value, mask


def both(*tensors, groups, **others):
    module = SimpleNamespace(num_key_value_groups=groups)
    ours, none = attention(module, *tensors, **others)
    assert none is None
    return ours, sdpa_attention_forward(module, *tensors, **others)[0]


def compiled():
    return any(kernel.cache_info()[:2])


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
@pytest.mark.parametrize(
    ("heads", "groups", "size", "value_size"),
    [(3, 3, 64, 64), (2, 8, 128, 128), (4, 1, 80, 80), (1, 2, 16, 24)],
)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_equals_pytorchs(fresh, caplog, heads, groups, size, value_size, dtype, error):
    tensors = inputs(heads, groups, size, dtype, value_size)
    ours, theirs = both(*tensors, groups=groups, scaling=0.3)
    assert compiled() and not caplog.records
    assert ours.shape == theirs.shape and ours.dtype == dtype
    assert float((ours - theirs).norm() / theirs.norm()) < error


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_a_window_hides_old_tokens_and_holes(fresh):
    query, key, value, mask = inputs(2, 2, 32, torch.float32)
    mask[4, ..., :100] = False
    mask[4, ..., 120:140] = False
    mask[2, ..., 10] = False
    ours, theirs = both(query, key, value, mask, groups=2)
    torch.testing.assert_close(ours, theirs)
    # One mask for all rows.
    ours, theirs = both(query, key, value, mask[4:], groups=2)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_stays_in_its_row(fresh, dtype):
    query, key, value, mask = inputs(2, 2, 32, dtype)
    key[3, 0, 5, 7] = float("nan")
    ours, _ = both(query, key, value, mask, groups=2)
    assert ours[3].isnan().any()
    assert not ours[[0, 1, 2, 4]].isnan().any()


def test_pieces_of_prompts_and_biases_are_pytorchs(fresh):
    query, key, value, mask = inputs(2, 2, 32, torch.float32)
    long = query.expand(-1, -1, 3, -1), key, value, mask.expand(-1, -1, 3, -1)
    ours, theirs = both(*long, groups=2)
    assert torch.equal(ours, theirs)
    bias = torch.randn(1, 4, 1, key.shape[2])
    ours, theirs = both(query, key, value, mask, groups=2, position_bias=bias)
    assert torch.equal(ours, theirs)
    assert not compiled()


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_pytorchs_is_used_and_said_once(fresh, monkeypatch, caplog, compiler):
    monkeypatch.setenv("CC", compiler)
    tensors = inputs(2, 2, 32, torch.float32)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            ours, theirs = both(*tensors, groups=2)
            assert torch.equal(ours, theirs)
    (record,) = caplog.records
    assert "no compiled kernel" in record.getMessage() and compiler in record.getMessage()
