"""What the trainer refuses: one message, exit code 2, and nothing is written.

python -m pytest tests/unit/fastchat/train/test_refusals.py
"""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from fastchat.train import processes
from fastchat.train.train import main
from tests.support.tiny import save_tiny_model
from tests.support.training_data import command, record, rows, write_rows


def too_long(content):
    for entry in content[:2]:
        entry["conversations"][-1]["value"] = "long " * 2000
    return content


BAD_DATA = {
    "no data file": (None, "there is no such file"),
    "not json": ("[{", "is not JSON"),
    "no weight": (json.dumps(rows(3, reward=0, weight=0.0)), "nothing to train"),
    "no answers": (
        json.dumps([*rows(3), {"conversations": []}]),
        "cannot be trained: 1 have no answer (",
    ),
    "too much": (json.dumps(too_long(rows(10))), "2 of 10 examples (20.0%) cannot be trained"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_data_that_cannot_be_trained_is_refused_in_one_message(case, tmp_path, capsys, name):
    text, message = BAD_DATA[name]
    data = tmp_path / "finetune.json"
    if text is not None:
        data.write_text(text)
    assert main(command((case[0], data), tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--model_name_or_path ./nowhere", "there is no directory './nowhere'"),
        ("--chat_template alpaca", "unknown chat template 'alpaca'"),
        ("--save_stepz=4", "unknown argument --save_stepz: did you mean --save_steps? --help l"),
        ("--fsdp full_shard", "use DeepSpeed, --deepspeed deepspeed/zero3.json"),
        ("--warmup_ratio 2", "--warmup_ratio is 2.0"),
        ("--warmup_ratio 0.1 --warmup_steps 5", "contradict"),
        ("--max_dropped_fraction 5", "--max_dropped_fraction is 5.0"),
        ("--batching packed", "choose one of tree, padded"),
        ("--tree_tokens 0", "--tree_tokens is 0"),
        ("--group_trajectories True --train_sampling_strategy sequential", "contradict each other"),
        ("--learning_rate nan", "--learning_rate is nan: it must be a number"),
        ("--learning_rate -1", "--learning_rate is -1.0"),
        ("--max_grad_norm inf", "--max_grad_norm is inf"),
        ("--per_device_train_batch_size 0", "it must be at least 1"),
        ("--num_train_epochs nan", "--num_train_epochs is nan"),
        ("--num_train_epochs 0", "--num_train_epochs is 0"),
        ("--report_to wandbb", "--report_to wandbb is unknown; choose wandb, tensorboard, "),
        ("--deepspeed nowhere.json", "nowhere.json"),
        ("--lora_r 4", "--lora_r does nothing without --use_lora True"),
        ("--use_lora True --lora_r 0", "--lora_r 0 and --lora_alpha 16"),
        ("--use_lora True --lora_bias some", "--lora_bias some: choose one of"),
        ("--use_lora True --lora_dropout 1", "--lora_dropout is 1.0"),
        ("--use_lora True --lora_target_modules query", "adapter --lora_target_modules query does"),
        ("--use_lora True --lora_target_modules lm_head", "lm_head is the embedding or the output"),
        ("--use_lora True --lora_weight_path /no", "/no: there is no adapter_config.json"),
        ("--use_lora True --lora_weight_path /no --lora_r 2", "--lora_r contradicts --lora_weight"),
        ("--q_lora True --deepspeed deepspeed/zero3.json", "--q_lora with DeepSpeed ZeRO-3"),
    ],
)
def test_a_refusal_is_one_message_before_weights_are_read_and_writes_nothing(
    case, tmp_path, capsys, monkeypatch, more, message
):
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", pytest.fail)
    assert main(command(case, tmp_path / "out", *more.split())) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists() and not torch.distributed.is_initialized()


def test_dropping_more_is_possible_when_asked_for(case, tmp_path):
    data = write_rows(tmp_path / "finetune.json", too_long(rows(10)))
    more = ["--max_dropped_fraction", "0.3", "--max_steps", "1"]
    assert main(command((case[0], data), tmp_path / "out", *more)) == 0
    assert record(tmp_path / "out")["data"]["too_long"] == 2


def test_a_missing_chat_template_names_the_argument(case, tmp_path, capsys):
    model = save_tiny_model(tmp_path / "bare", template="chatml", installed=False)
    assert main(command((model, case[1]), tmp_path / "out")) == 2
    assert "has no chat template; pass one with --chat-template" in capsys.readouterr().err


def test_the_models_own_directory_and_a_foreign_checkpoint_are_no_output(case, capsys, tmp_path):
    assert main(command(case, case[0])) == 2
    assert "the result would overwrite its source" in capsys.readouterr().err
    (tmp_path / "out" / "checkpoint-100").mkdir(parents=True)
    assert main(command(case, tmp_path / "out")) == 2
    assert "holds checkpoint-100 but no training.json" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_one_error(case, tmp_path, capsys, monkeypatch):
    assert main(command(case, case[1] / "out")) == 2
    assert f"{case[1]} is a file; name a directory" in capsys.readouterr().err
    monkeypatch.setattr("fastchat.train.checks.os.access", lambda *_: False)
    assert main(command(case, tmp_path / "out")) == 2
    assert f"{tmp_path} cannot be written to" in capsys.readouterr().err


def test_all_problems_are_named_at_once(tmp_path, capsys):
    missing = (tmp_path / "no" / "model", tmp_path / "no.json")
    more = ["--max_dropped_fraction", "-1", "--label_smoothing_factor", "0.1"]
    more += ["--save_only_model", "True", "--ignore_data_skip", "True"]
    assert main(command(missing, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    named = ("--data_path", "--model_name_or_path", "-1.0", "label_smo", "save_only", "data_skip")
    assert [part for part in named if part not in error] == []


@pytest.mark.parametrize(("code", "told"), [(2, True), (1, True), (130, False)])
def test_another_rank_tells_what_the_first_one_does_not(monkeypatch, capsys, code, told):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(processes, "OTHER_RANKS_WAIT", 0.0)
    assert processes.fail("no such file on this node", code) == code
    assert ("no such file on this node" in capsys.readouterr().err) == told
