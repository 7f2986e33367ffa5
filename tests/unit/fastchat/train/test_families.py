"""Every model family and every scaling of positions is trained, saved, reloaded and served.

python -m pytest tests/unit/fastchat/train/test_families.py
"""

import json

import pytest
import torch
from transformers import AutoTokenizer

from fastchat.model.model_adapter import load_model, load_tokenizer, pick_attention
from fastchat.train.train import main
from tests.support.served import greedy
from tests.support.tiny import save_tiny_model, tiny_config
from tests.support.training_data import rows, write_rows

LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA_3 |= {"original_max_position_embeddings": 256}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 6, "long_factor": [2.0] * 6}

FAMILIES = {
    "llama": ("llama", {}),
    "llama, linear": ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
    "llama 3.1": ("llama", {"rope_scaling": LLAMA_3}),
    "llama, longrope": ("llama", {"rope_scaling": {"factor": 2.0, **LONG}}),
    "llama 3.2, tied": ("llama", {"rope_scaling": LLAMA_3, "tie_word_embeddings": True}),
    "mistral": ("mistral", {}),
    "qwen 2.5": ("qwen2", {}),
    "qwen 3": ("qwen3", {}),
    "gemma": ("gemma", {}),
    "gemma 2": ("gemma2", {"sliding_window": 64}),
    "gemma 3": ("gemma3", {"sliding_window": 64}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "finetune.json", rows(4))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_trained_saved_and_served(data, tmp_path, capsys, name):
    family, changes = FAMILIES[name]
    source = save_tiny_model(tmp_path / "model", family, **changes)
    output = tmp_path / "out"
    command = ["--model_name_or_path", source, "--data_path", data, "--output_dir", output]
    command += ["--max_steps", "1", "--per_device_train_batch_size", "4", "--report_to", "none"]
    command += ["--learning_rate", "1e-2", "--save_strategy", "no", "--disable_tqdm", "True"]
    assert main([str(part) for part in command]) == 0
    assert "chosen; --attn_implementation overrides" in capsys.readouterr().out

    before, after = (load_model(path, device="cpu") for path in (source, output))
    assert type(after) is type(before)
    assert after.num_parameters() == before.num_parameters()
    assert not torch.equal(
        after.get_input_embeddings().weight, before.get_input_embeddings().weight
    )
    old, new = load_tokenizer(source), AutoTokenizer.from_pretrained(output)
    assert (new.pad_token_id, new.get_vocab()) == (old.pad_token_id, old.get_vocab())
    positions = [json.loads((path / "config.json").read_text()) for path in (source, output)]
    assert positions[0].get("rope_parameters") == positions[1].get("rope_parameters")

    model, tokens = greedy(output)
    asked = [{"role": "user", "content": "What is 1 + 2?"}]
    how = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
    prompt = new.apply_chat_template(asked, **how)
    limits = {"max_new_tokens": len(tokens), "do_sample": False, "eos_token_id": None}
    expected = model.generate(**prompt, **limits)
    assert tokens == expected[0, prompt["input_ids"].shape[1] :].tolist()


def test_capped_attention_scores_are_computed_by_code_that_caps_them(monkeypatch):
    cpu, gpu = map(torch.device, ("cpu", "cuda"))
    assert pick_attention(tiny_config("gemma2"), gpu) == "eager"
    assert pick_attention(tiny_config("gemma3"), gpu) == "sdpa"
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: True)
    assert pick_attention(tiny_config("llama"), gpu) == "flash_attention_2"
    assert pick_attention(tiny_config("llama"), cpu) == "sdpa"
