"""What the trainer refuses before torch is imported.

python -m pytest tests/unit/fastchat/train/test_first_look.py
"""

import os
import subprocess
import sys

from fastchat.train import train_mem
from fastchat.train.first_look import first_look


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


def test_what_may_come_later_is_let_through():
    assert first_look(["--data-path", "later.json", "--check"]) == []
    assert first_look(["--help", "--data_path", "later.json"]) == []
