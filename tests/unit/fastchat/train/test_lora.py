"""Adapters: loss and gradient, what is saved, resuming, serving and merging, refusals.

python -m pytest tests/unit/fastchat/train/test_lora.py
"""

import json
import shutil
from functools import partial

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from fastchat.conversation import ChatTemplate
from fastchat.model import apply_lora
from fastchat.model.model_adapter import load_model, load_tokenizer
from fastchat.train.arguments import TrainingArguments
from fastchat.train.data.rwr_dataset import RWRDataset
from fastchat.train.lora import LoraArguments, add_adapter
from fastchat.train.train import main
from rise.policies import names
from tests.support import training_data as shared
from tests.support.served import greedy
from tests.support.training_data import figures, make_case
from tests.support.training_steps import definition

SHAPES = {"hidden_size": 64, "head_dim": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
"""The 4-bit kernels want multiples of 32."""
TRAINED = 2 * 2 * 8 * (64 + 64)
"""Rank 8 beside q_proj and v_proj of two layers, all of them 64 x 64."""


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return make_case(tmp_path_factory.mktemp("case"), intermediate_size=128, **SHAPES)


command = partial(shared.command, rate="1e-2")


@pytest.fixture(scope="module")
def finished(case, tmp_path_factory):
    output = tmp_path_factory.mktemp("finished") / "out"
    assert (
        main(command(case, output, "--use_lora", "True", "--gradient_checkpointing", "True")) == 0
    )
    return output


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_step_of_an_adapter_follows_the_definition(case, tmp_path, checkpointing):
    """One step of SGD, so that the trained adapter shows the gradient."""
    more = ["--use_lora", "True", "--lora_dropout", "0", "--optim", "sgd", "--max_steps", "1"]
    more += ["--per_device_train_batch_size", "10", "--lr_scheduler_type", "constant"]
    more += ["--max_grad_norm", "0", "--gradient_checkpointing", str(checkpointing)]
    assert main(command(case, tmp_path / "out", *more)) == 0

    args = TrainingArguments(output_dir=str(tmp_path), report_to="none")
    base = AutoModelForCausalLM.from_pretrained(case[0], dtype=torch.float32)
    model = add_adapter(base, LoraArguments(use_lora=True, lora_dropout=0.0), args)
    template = ChatTemplate(AutoTokenizer.from_pretrained(case[0]))
    data = RWRDataset(case[1], template, 2048)
    _, gradients = definition(model, list(data))
    trained = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(case[0], dtype=torch.float32), tmp_path / "out"
    ).state_dict()
    assert any(gradient.abs().max() > 0.1 for gradient in gradients.values())
    for name, value in model.named_parameters():
        if value.requires_grad:
            expected = value - 1e-2 * gradients[name]
            assert torch.allclose(trained[name], expected, rtol=1e-4, atol=1e-6), name


def test_an_adapter_is_saved_with_tokenizer_and_template(case, finished, capsys):
    saved = json.loads((finished / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == str(case[0])
    assert (saved["r"], saved["lora_alpha"], saved["lora_dropout"]) == (8, 16, 0.05)
    assert sorted(saved["target_modules"]) == ["q_proj", "v_proj"]
    assert (finished / "adapter_model.safetensors").stat().st_size < 8 * TRAINED
    assert not (finished / "model.safetensors").exists()
    template = AutoTokenizer.from_pretrained(case[0]).chat_template
    assert load_tokenizer(finished).chat_template == template
    record = json.loads((finished / "training.json").read_text())
    assert record["parameters"] == TRAINED
    assert record["settings"]["lora"]["lora_r"] == 8


def test_the_number_of_trained_parameters_is_said_and_dropout_survives_resuming(
    case, finished, tmp_path, capsys
):
    output = shutil.copytree(finished, tmp_path / "out")
    record = json.loads((output / "training.json").read_text()) | {"status": "running"}
    (output / "training.json").write_text(json.dumps(record))
    shutil.rmtree(output / "checkpoint-6")
    more = ["--use_lora", "True", "--gradient_checkpointing", "True"]
    assert main(command(case, output, *more)) == 0
    printed = capsys.readouterr().out
    assert f"{TRAINED:,} of them are trained" in printed
    assert f"resuming from {output}/checkpoint-4" in printed
    assert figures(output) == figures(finished)
    assert figures(output, "grad_norm") == figures(finished, "grad_norm")


def test_training_goes_on_from_an_adapter(case, finished, tmp_path):
    more = ["--lora", "True", "--lora_weight_path", str(finished), "--max_steps", "1"]
    assert main(command(case, tmp_path / "out", *more)) == 0
    assert figures(tmp_path / "out")[0] < 0.9 * figures(finished)[0]


def test_a_worker_serves_an_adapter_as_it_serves_the_merged_model(case, finished, tmp_path, capsys):
    merged = tmp_path / "merged"
    apply_lora.main(["--lora-path", str(finished), "--target-model-path", str(merged)])
    count = AutoModelForCausalLM.from_pretrained(case[0]).num_parameters()
    assert f"{count:,} parameters" in capsys.readouterr().out
    assert load_tokenizer(merged).chat_template == load_tokenizer(finished).chat_template
    own, adapted = greedy(finished)
    whole, tokens = greedy(merged)
    assert adapted == tokens != greedy(case[0])[1]
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.allclose(own(ids).logits, whole(ids).logits, rtol=1e-4, atol=1e-4)


def test_the_base_of_an_adapter_can_be_named(case, finished, tmp_path):
    moved, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(case[0], moved)
    shutil.copytree(finished, adapter)
    saved = json.loads((adapter / "adapter_config.json").read_text())
    gone = saved | {"base_model_name_or_path": "/nowhere/base"}
    (adapter / "adapter_config.json").write_text(json.dumps(gone))
    with pytest.raises(ValueError, match=r"names the base /nowhere/base.*--base-model-path"):
        load_model(adapter, device="cpu")
    assert greedy(adapter, "--base-model-path", str(moved))[1] == greedy(finished)[1]
    with pytest.raises(ValueError, match="is no adapter"):
        load_model(moved, base=str(moved))


def test_an_evaluation_takes_an_adapter_and_tells_its_base_apart(finished, tmp_path):
    assert names.decide([str(finished)], "http://127.0.0.1:9") == {str(finished): "checkpoint"}
    adapter = shutil.copytree(finished, tmp_path / "adapter")
    assert names.fingerprint(str(adapter)) == names.fingerprint(str(finished))
    path = adapter / "adapter_config.json"
    saved = json.loads(path.read_text())
    other = tmp_path / "other"
    shutil.copytree(saved["base_model_name_or_path"], other)
    path.write_text(json.dumps(saved | {"base_model_name_or_path": str(other)}))
    before = names.fingerprint(str(adapter))
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    assert names.fingerprint(str(adapter)) != before


def test_a_frozen_model_in_4_bits_is_trained_around(case, finished, tmp_path, capsys):
    """Evaluated first: after that, bitsandbytes would let no gradient through on a CPU."""
    pytest.importorskip("bitsandbytes")
    output = tmp_path / "out"
    more = ["--q_lora", "True", "--eval_data_path", str(case[1]), "--eval_on_start", "True"]
    assert main(command(case, output, *more)) == 0
    printed = capsys.readouterr().out
    full = AutoModelForCausalLM.from_pretrained(case[0]).num_parameters()
    assert f"{full:,} parameters" in printed and f"{TRAINED:,} of them are trained" in printed
    for key in ("loss", "grad_norm"):
        first, exact = figures(output, key)[0], figures(finished, key)[0]
        assert first == pytest.approx(exact, rel=0.1) and first != pytest.approx(exact, rel=1e-4)
    assert greedy(output)[1]


def test_an_adapter_is_no_model_to_train(case, finished, tmp_path, capsys):
    assert main(command((finished, case[1]), tmp_path / "out")) == 2
    assert f"--use_lora True --lora_weight_path {finished}" in capsys.readouterr().err


def test_a_merge_overwrites_nothing_and_wants_an_adapter(case, finished, tmp_path, capsys):
    (tmp_path / "kept").write_text("")
    for lora, part in ((finished, "is not empty"), (case[0], "holds no adapter_config.json")):
        with pytest.raises(SystemExit) as refused:
            apply_lora.main(["--lora-path", str(lora), "--target-model-path", str(tmp_path)])
        assert refused.value.code == 2
        assert part in capsys.readouterr().err
