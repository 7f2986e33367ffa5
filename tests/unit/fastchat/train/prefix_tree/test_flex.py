"""The attention code of trees on a GPU, in whole models, with torch's own reference on the CPU.

    python -m pytest tests/unit/fastchat/train/prefix_tree/test_flex.py

The compiled kernels of flex_attention have no backward pass on a CPU; torch's uncompiled code has
one, which a check on the device hides. So what is tested here is all but the kernels: masks, what
the model is given, and gradients.
"""

import math
import os
import re
from functools import partial
from shutil import which

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import flex_attention as torch_flex
from transformers import AutoModelForCausalLM
from transformers.integrations import flex_attention as wrapper

from fastchat.train.prefix_tree import flex
from fastchat.train.prefix_tree.flex import FLEX, FLEX_BLOCK, flex_problem
from fastchat.train.prefix_tree.model import tree_error
from tests.support.tiny import save_tiny_model, tiny_config
from tests.support.training_data import in_float64, make_case, rows, write_rows
from tests.support.training_steps import (
    assert_same_step,
    first_step,
    make_trainer,
    naive_step,
    windowed,
)


@pytest.fixture
def uncompiled(monkeypatch):
    """flex_attention as torch's reference, for gradients on the CPU."""
    if not hasattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"):
        pytest.skip(f"torch {torch.__version__} always compiles flex_attention")
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(torch_flex, "_validate_device", lambda query, key, value: None)
    code = torch_flex.flex_attention
    monkeypatch.setattr(wrapper.WrappedFlexAttention, "__call__", lambda self: code)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("case")
    _, path = make_case(directory)
    return write_rows(path, rows(10)), directory


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3"])
def test_loss_and_gradient_equal_the_definition(uncompiled, data, tmp_path, family, checkpointing):
    if family in ("llama", "gemma"):
        save_tiny_model(tmp_path, family)
    else:
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(windowed(family)).save_pretrained(tmp_path)
    case = (tmp_path, *data)
    model = in_float64(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64))
    trainer = make_trainer(
        case,
        model,
        per_device_train_batch_size=10,
        gradient_checkpointing=checkpointing,
        batching="tree",
    )
    model.set_attn_implementation(FLEX)
    (batch,) = next(iter(trainer.get_train_dataloader()))["passes"]
    assert trainer.trees and batch["input_ids"].numel() % FLEX_BLOCK == 0
    assert_same_step(first_step(trainer), naive_step(case, list(trainer.train_dataset)))


CPU = torch.device("cpu")


def wrong(module, query, key, value, mask, **others):
    """Attention that does not look at the tree."""
    output, _ = flex.tree_attention(module, query, key, value, None)
    return output, None


def broken(*inputs, **others):
    raise RuntimeError("NoValidChoicesError: no kernel\nlong story")


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
def test_it_is_taken_where_output_and_gradients_of_a_layer_are_right(uncompiled, family):
    config = tiny_config() if family == "llama" else windowed(family)
    assert flex_problem(config, CPU, torch.float32) is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (wrong, "it is wrong by"),
        (broken, r"it fails on this machine \(RuntimeError: NoValidChoicesError: no kernel\)"),
    ],
)
def test_it_is_left_where_it_fails_or_is_wrong(monkeypatch, code, reason):
    monkeypatch.setattr(flex, "flex_attention", code)
    assert re.match(reason, flex_problem(tiny_config(), CPU, torch.float32))


@pytest.mark.parametrize(("length", "factor"), [(512, 1.1), (768, 1.1), (768, math.nan)])
def test_it_is_left_where_one_gradient_is_wrong_at_one_length(
    uncompiled, monkeypatch, length, factor
):
    right = flex.flex_attention

    def code(module, query, key, *others):
        key = key.clone()
        if key.shape[2] == length:
            key.register_hook(lambda gradient: gradient * factor)
        return right(module, query, key, *others)

    monkeypatch.setattr(flex, "flex_attention", code)
    reason = f"it is wrong by {factor - 1:.2g} on this machine"
    assert flex_problem(tiny_config(), CPU, torch.float32) == reason


def test_from_the_second_length_on_nothing_is_compiled_again(monkeypatch):
    counter = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    monkeypatch.setattr(wrapper.WrappedFlexAttention, "_instance", None)
    torch._dynamo.reset()
    counts = []
    for length in (512, 768, 1280):
        inputs = (torch.randn(1, length, heads, 16).transpose(1, 2) for heads in (4, 2, 2))
        depths, ends = torch.arange(length), torch.full((length,), length)
        flex.flex_attention(torch.nn.Module(), *inputs, flex.block_mask(depths, ends, None))
        counts.append(counter.frame_count)
    assert counts == [1, 2, 2]


def test_a_model_that_drops_attention_weights_does_without_it():
    config = tiny_config("llama", attention_dropout=0.1)
    assert flex_problem(config, CPU, torch.float32) == "it cannot drop attention weights"


def test_under_autocast_it_gets_one_dtype(monkeypatch):
    seen = []
    monkeypatch.setattr(
        wrapper, "flex_attention_forward", lambda module, *inputs: seen.extend(inputs[:3])
    )
    tensors = [torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 4, 8).bfloat16()]
    with torch.autocast("cpu", torch.bfloat16):
        flex.flex_attention(None, *tensors, None)
    assert {tensor.dtype for tensor in seen} == {torch.bfloat16}


@pytest.mark.skipif(not which(os.environ.get("CXX", "g++")), reason="needs a C++ compiler")
def test_compiled_it_computes_the_same_logits():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(windowed("gemma3"))
    model.set_attn_implementation(FLEX)
    assert tree_error(model, model, CPU) < 1e-4
