"""Loading checkpoints: what is loaded how, and what is said when it cannot be.

python -m pytest tests/unit/fastchat/model/test_model_adapter.py
"""

from types import SimpleNamespace

import httpx
import pytest
import torch
import transformers
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from transformers import LlamaConfig

from fastchat.model import model_adapter
from fastchat.model.model_adapter import (
    context_length,
    load_model,
    load_stop_ids,
    load_tokenizer,
)
from tests.support.tiny import save_tiny_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_a_checkpoint_is_loaded_for_serving(checkpoint):
    model = load_model(checkpoint, device="cpu")
    assert model.dtype == torch.float32 and not model.training
    assert model.config._attn_implementation == "sdpa"
    assert load_tokenizer(checkpoint).chat_template


def test_dtype_and_attention_can_be_chosen(checkpoint):
    model = load_model(checkpoint, device=None, dtype=torch.bfloat16, attn_implementation="eager")
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"
    assert load_model(checkpoint, device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(ValueError, match="unknown dtype 'int3'"):
        load_model(checkpoint, dtype="int3")
    with pytest.raises(ValueError, match="unknown device 'quantum'"):
        load_model(checkpoint, device="quantum")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_said(checkpoint):
    assert model_adapter.pick_device("auto") == "cpu"
    with pytest.raises(ValueError, match="torch sees no GPU"):
        load_model(checkpoint, device="cuda")


@pytest.mark.parametrize(("gpus", "has"), [(1, "1 GPU: cuda:0"), (2, "2 GPUs: cuda:0, cuda:1")])
def test_a_gpu_that_the_machine_does_not_have_is_said(checkpoint, monkeypatch, gpus, has):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(model_adapter, "load_config", lambda *_: pytest.fail("it began to load"))
    with pytest.raises(ValueError, match=f"'cuda:7' was asked for, but this machine has {has}$"):
        load_model(checkpoint, device="cuda:7")
    for device in ("cuda", "cuda:0", f"cuda:{gpus - 1}", "cpu"):
        assert model_adapter.pick_device(device) == device


def test_stop_ids_come_from_the_generation_config(checkpoint, tmp_path):
    tokenizer = load_tokenizer(checkpoint)
    assert load_stop_ids(checkpoint) == [tokenizer.eos_token_id]
    transformers.GenerationConfig(eos_token_id=[3, 9]).save_pretrained(tmp_path)
    load_model(checkpoint).config.save_pretrained(tmp_path)
    assert load_stop_ids(tmp_path) == [3, 9]


@pytest.mark.parametrize("path", ["/nowhere/at/all", "./nowhere", "~/nowhere", "a/b/c", ""])
def test_missing_directories_are_named(path):
    with pytest.raises(ValueError, match="there is no directory"):
        load_tokenizer(path)


def test_a_directory_without_a_checkpoint_that_can_be_read_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"without config\.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=f"cannot read the .* in {tmp_path}") as failed:
        load_model(tmp_path)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("cause", "part"),
    [(GatedRepoError, "hf auth login"), (RepositoryNotFoundError, "neither a directory")],
)
def test_hub_refusals_say_what_to_do(monkeypatch, cause, part):
    request = httpx.Request("GET", "https://huggingface.co")

    def refuse(*_, **__):
        raise OSError("no access\nand more lines") from cause(
            "refused", response=httpx.Response(403, request=request)
        )

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(ValueError, match=part) as failed:
        load_tokenizer("meta-llama/Llama-2-7b-chat-hf")
    assert "meta-llama/Llama-2-7b-chat-hf" in str(failed.value)
    assert "\n" not in str(failed.value)


LLAMA_3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    ("rope", "original", "expected"),
    [
        ({"rope_type": "default"}, None, 4096),
        ({"rope_type": "linear", "factor": 4.0}, None, 16384),
        ({"rope_type": "dynamic", "factor": 2.0}, None, 8192),
        ({"rope_type": "llama3", "factor": 8.0, **LLAMA_3}, 1024, 4096),
        ({"rope_type": "yarn", "factor": 4.0}, 4096, 16384),
    ],
)
def test_context_length_counts_position_scaling(rope, original, expected):
    rope |= {"rope_theta": 10000.0}
    rope |= {"original_max_position_embeddings": original} if original else {}
    config = LlamaConfig(max_position_embeddings=4096, rope_parameters=rope)
    assert context_length(config) == expected


@pytest.mark.parametrize(
    "own, native, device, expected",
    [
        ("bfloat16", True, "cpu", "bfloat16"),
        ("bfloat16", False, "cpu", "float32"),
        ("float16", True, "cpu", "float32"),
        ("float32", True, "cpu", "float32"),
        ("bfloat16", False, "cuda", "bfloat16"),
    ],
)
def test_the_checkpoints_dtype_is_taken_where_the_processor_computes_in_it(
    monkeypatch, own, native, device, expected
):
    monkeypatch.setattr(model_adapter, "computes_bfloat16", lambda: native)
    config = SimpleNamespace(dtype=getattr(torch, own))
    assert model_adapter.pick_dtype("auto", device, config) == getattr(torch, expected)
