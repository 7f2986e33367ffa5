"""What the trainer refuses before torch is imported.

python -m pytest tests/unit/fastchat/train/test_first_look.py
"""

import os
import subprocess
import sys
from dataclasses import fields

from fastchat.train import arguments, train_mem
from fastchat.train.first_look import first_look, flags_of_trainer


def test_slips_are_named_with_their_remedies_before_torch_is_imported(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    (tmp_path / "finetune.json").write_text("[]")
    words = ["--data_path", "finetun.json", "--model_name_or_path=./model", "--local_rank=0"]
    done = subprocess.run(
        [sys.executable, train_mem.__file__, *words, "--output_dir", "out"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    data, model = done.stderr.splitlines()
    assert done.returncode == 2
    assert "--data_path finetun.json: there is no such file (did you mean finetune.json?)" in data
    assert "there is no directory './model'" in model


def test_a_python_without_the_packages_is_told_of_the_environment():
    command = [sys.executable, "-S", "-E", train_mem.__file__]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith(
        "has no torch: source .venv/bin/activate (bash scripts/setup.sh makes it)\n"
    )


GIVEN = ["--data-path", "later.json", "--model_name_or_path", "later", "--output_dir", "out"]


def test_what_may_come_later_is_let_through():
    assert first_look([*GIVEN, "--check"]) == []
    assert first_look(["--help", "--data_path", "later.json"]) == []


def test_flags_that_are_unknown_missing_or_neither_true_nor_false_are_named():
    given = ["--data_pth=a.json", "--bf16", "Tru", "--lazy-preprocess=maybe", "--check"]
    given += ["--learning_rate", "1e-5x", "--max_steps", "1.5", "--model", "a", "--data", "b"]
    assert first_look(given) == [
        "unknown arguments --data_pth --model --data: did you mean --model_name_or_path, "
        "--data_path? --help lists all",
        "--model_name_or_path is missing: name a checkpoint",
        "--data_path is missing: name the file that workflow_convert.py wrote",
        "--output_dir is missing: name the directory for the checkpoint",
        "--bf16 is Tru: give True or False",
        "--lazy_preprocess is maybe: give True or False",
        "--max_steps is 1.5: give a number",
        "--learning_rate is 1e-5x: give a number",
    ]
    stock = ["--fsdp_transformer_layer_cls_to_wrap", "LlamaDecoderLayer", "--padding_side", "right"]
    assert first_look([*GIVEN, *stock, "--check"]) == [
        "unknown arguments --fsdp_transformer_layer_cls_to_wrap --padding_side: use DeepSpeed, "
        "--deepspeed deepspeed/zero3.json; leave it out; --help lists all"
    ]
    fine = "--lora --no-average_tokens_across_devices --local_rank=0 --lora-target-modules a b"
    assert first_look([*GIVEN, *fine.split(), "--learning_rate", "-1", "--check", "yes"]) == []


def test_the_flags_that_are_read_off_the_sources_are_those_of_the_parser():
    groups = (arguments.ModelArguments, arguments.DataArguments, arguments.LoraArguments)
    groups += (arguments.TrainingArguments,)
    names = {field.name for group in groups for field in fields(group) if field.init}
    assert names <= flags_of_trainer().keys()


def test_nothing_is_said_of_flags_that_the_sources_do_not_have(tmp_path, monkeypatch):
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").touch()
    sources = tmp_path / "transformers" / "training_args.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "transformers", raising=False)
    aliased = '@dataclass\nclass TrainingArguments:\n    old: int = f(metadata={"aliases": []})\n'
    for text in ("", "@dataclass\nclass TrainingArguments(Base):\n    old: int = 1\n", aliased):
        sources.write_text(text)
        assert first_look([*GIVEN, "--new", "1", "--bf16", "auto", "--check"]) == []


def test_a_directory_is_no_file_of_data_and_short_names_are_suggested(tmp_path):
    (tmp_path / "try").mkdir()
    data, model = (
        first_look(["--data_path", path, "--model_name_or_path", path, "--output_dir", "out"])
        for path in (str(tmp_path / "try"), str(tmp_path / "tri"))
    )
    assert f"--data_path {tmp_path / 'try'} is a directory: give the file" in data[0]
    assert all(f"did you mean {tmp_path / 'try'}?" in line for line in model)
