"""Checkpoints with files that were not fetched, cut off or lost: one line, before anything is done.

python -m pytest tests/unit/fastchat/model/test_weight_files.py
"""

import json
import shutil

import huggingface_hub
import pytest
import torch
from transformers import AutoModelForCausalLM

from fastchat.client import http
from fastchat.model import hub
from fastchat.model.weight_files import check_files
from fastchat.serve import model_worker
from fastchat.train.train import main
from tests.support.tiny import save_tiny_model
from tests.support.training_data import command, rows, write_rows

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 10\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def model(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def shard(model):
    """The model in several files, with their index."""
    loaded = AutoModelForCausalLM.from_pretrained(model)
    (model / "model.safetensors").unlink()
    loaded.save_pretrained(model, max_shard_size="100KB")
    return sorted(model.glob("model-0*.safetensors"))


def as_bin(model):
    state = AutoModelForCausalLM.from_pretrained(model).state_dict()
    (model / "model.safetensors").unlink()
    torch.save(state, model / "pytorch_model.bin")
    return model / "pytorch_model.bin"


def cut(path, by=10):
    path.write_bytes(path.read_bytes()[:-by])


def weights(model):
    return model / "model.safetensors"


def tokenizer(model):
    return model / "tokenizer.json"


def point(path):
    path.write_bytes(POINTER)


CUT = r"model.safetensors is cut off, or .* \([\d,]+ bytes; .*\): fetch it again \(`git lfs"
NO_FILE = "is cut off, or no safetensors file"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda m: point(weights(m)), "model.safetensors is a pointer .* run `git lfs pull` in"),
        (lambda m: point(tokenizer(m)), "tokenizer.json is a pointer of Git LFS"),
        (lambda m: cut(tokenizer(m)), r"tokenizer.json is cut off, or no JSON \([\d,]+ bytes\): f"),
        (lambda m: cut(weights(m)), CUT),
        (lambda m: cut(weights(m), weights(m).stat().st_size - 20), NO_FILE),  # within its header
        (lambda m: weights(m).write_bytes(b""), NO_FILE),
        (lambda m: weights(m).write_bytes(b"Entry not found"), NO_FILE),
        (lambda m: weights(m).unlink(), "holds no model.safetensors"),
        (lambda m: shard(m)[1].unlink(), "model-00002-of-0000.*.safetensors is missing, though t"),
        (lambda m: cut(shard(m)[-1]), "model-0000.*.safetensors is cut off"),
        (lambda m: cut(as_bin(m)), "pytorch_model.bin is cut off"),
        (lambda m: point(as_bin(m)), "pytorch_model.bin is a pointer of Git LFS"),
    ],
)
def test_what_is_not_whole_is_named_with_the_remedy(model, spoil, said):
    spoil(model)
    with pytest.raises(ValueError, match=said) as caught:
        check_files(model)
    assert "\n" not in str(caught.value)


def test_whole_checkpoints_pass_whatever_else_lies_beside_them(whole, model):
    check_files(whole)
    (model / "pytorch_model.bin").write_bytes(POINTER)  # not read: there are safetensors
    check_files(model)
    (model / "pytorch_model.bin").unlink()
    shard(model)
    check_files(model)


def test_a_model_that_is_neither_here_nor_to_be_had_is_refused_without_retries(monkeypatch):
    monkeypatch.setattr(hub, "unreachable", lambda: None)
    check_files("some-org/on-the-hub")
    monkeypatch.setattr(hub, "unreachable", lambda: "no route to host")
    with pytest.raises(ValueError, match="typo is no directory here .*no route to host"):
        check_files("typo")


@pytest.mark.parametrize(
    ("cause", "said"),
    [("[SSL: CERTIFICATE_VERIFY_FAILED] own CA", None), ("no route", "no route"), (None, None)],
)
def test_a_hub_whose_certificate_python_does_not_know_answers(monkeypatch, cause, said):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(http, "unreachable", lambda _: cause)
    assert hub.unreachable.__wrapped__() == said


def test_a_whole_bin_passes_and_an_adapter_is_looked_at_with_its_base(model, tmp_path):
    as_bin(model)
    check_files(model)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    base = {"base_model_name_or_path": str(model)}
    (adapter / "adapter_config.json").write_text(json.dumps(base))
    point(adapter / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="adapter_model.safetensors is a pointer"):
        check_files(adapter)


def test_trainer_and_worker_say_it_at_once(model, tmp_path, capsys):
    point(weights(model))
    data = write_rows(tmp_path / "data.json", rows(3))
    assert main(command((model, data), tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert error.startswith("train_mem.py: error: --model_name_or_path: ")
    assert error.count("\n") == 1
    with pytest.raises(SystemExit) as left:
        model_worker.main(["--model-path", str(model), "--port", "0", "--no-register"])
    assert left.value.code == 2 and "run `git lfs pull`" in capsys.readouterr().err
