"""Trees, padded batches and grouped trajectories through the trainer's command.

python -m pytest tests/unit/fastchat/train/test_batching.py
"""

import json

import pytest

from fastchat.train.train import main
from tests.support.training_data import make_case, row, write_rows


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Four trajectories of three turns."""
    model, data = make_case(tmp_path_factory.mktemp("case"))
    return model, write_rows(data, [row(i // 3, 1 + i % 3) for i in range(12)])


def train(case, output, *more):
    model, data = case
    command = [
        *("--model_name_or_path", model, "--data_path", data, "--output_dir", output),
        *("--report_to", "none", "--disable_tqdm", "True", "--save_strategy", "no"),
        *("--gradient_accumulation_steps", "5", "--per_device_train_batch_size", "1"),
        *("--learning_rate", "1e-3", "--logging_steps", "1", "--num_train_epochs", "1", *more),
    ]
    return main([str(part) for part in command])


def losses(output):
    record = json.loads((output / "training.json").read_text())
    return [entry["loss"] for entry in record["log_history"] if "loss" in entry]


@pytest.fixture(scope="module")
def finished(case, tmp_path_factory):
    output = tmp_path_factory.mktemp("finished") / "out"
    assert train(case, output) == 0
    return output


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--batching", "padded"], "attention: sdpa"),
        (["--tree_tokens", "100"], "attention: prefix_tree"),
        (["--attn_implementation", "eager"], "padded, since --attn_implementation eager has no"),
    ],
)
def test_the_layout_of_batches_changes_no_loss(case, finished, tmp_path, capsys, more, said):
    assert train(case, tmp_path / "out", *more) == 0
    assert said in capsys.readouterr().out
    assert len(losses(finished)) == 3
    assert losses(tmp_path / "out") == pytest.approx(losses(finished), rel=1e-4)


def test_grouped_trajectories_are_another_run(case, finished, tmp_path, capsys):
    assert train(case, finished, "--group_trajectories", "True") == 2
    assert "group_trajectories (was False, is True)" in capsys.readouterr().err
    assert train(case, tmp_path / "out", "--group_trajectories", "True") == 0
    assert losses(tmp_path / "out") != pytest.approx(losses(finished), rel=1e-4)
