"""What a run leaves in wandb's offline run and in TensorBoard's event files.

python -m pytest tests/unit/fastchat/train/test_trackers.py
"""

import json
import logging
import time

import pytest
import wandb
from transformers.integrations import WandbCallback

from fastchat.tracking import start_wandb
from fastchat.train.train import main
from tests.support.offline_wandb import (
    names_in,
    no_login,  # noqa: F401  (a fixture)
    panels,
    read_offline_run,
    read_offline_runs,
)
from tests.support.training_data import make_case, row, write_rows

LOG = logging.getLogger("fastchat.train")
FIGURES = {
    *("loss", "grad_norm", "learning_rate", "tokens_per_second", "effective_samples"),
    *("nll", "nll_right", "nll_wrong", "nll_no_answer", "truncated"),
}


@pytest.fixture(autouse=True)
def finished(no_login):  # noqa: F811
    yield
    wandb.finish()


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Six rows in steps of three; in each step one has a history that is too long."""
    directory = tmp_path_factory.mktemp("case")
    model, _ = make_case(directory)
    content = [row(i, turns=9 if i % 3 == 0 else 1, reward=1 - i % 3) for i in range(6)]
    return model, write_rows(directory / "finetune.json", content)


def train(case, output, *more):
    model, data = case
    command = ["--model_name_or_path", model, "--data_path", data, "--output_dir", output]
    command += ["--num_train_epochs", "1", "--save_strategy", "no", "--logging_steps", "1"]
    command += ["--disable_tqdm", "True"]
    command += ["--per_device_train_batch_size", "3", "--train_sampling_strategy", "sequential"]
    assert main([str(part) for part in [*command, "--model_max_length", "200", *more]]) == 0
    record = json.loads((output / "training.json").read_text())
    return [entry for entry in record["log_history"] if "loss" in entry]


def test_wandb_and_tensorboard_get_every_figure_of_every_step(case, tmp_path, caplog):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    output = tmp_path / "out"
    entries = train(case, output, "--report_to", "wandb,tensorboard")
    assert caplog.text.count("no wandb login: metrics are kept offline") == 1
    wandb.finish()
    assert all(entry.keys() >= FIGURES for entry in entries)
    assert [entry["truncated"] for entry in entries] == pytest.approx([1 / 3, 1 / 3])
    run = read_offline_run(output)
    assert panels("train") <= names_in(run)
    rows = [row for row in run["history"] if "train/loss" in row]
    (events,) = {path.parent for path in output.rglob("events.out.tfevents.*")}
    board = EventAccumulator(str(events)).Reload()
    for name in FIGURES:
        expected = pytest.approx([entry[name] for entry in entries], rel=1e-5)
        assert [row[f"train/{name}"] for row in rows] == expected, name
        assert [event.value for event in board.Scalars(f"train/{name}")] == expected, name


def test_stages_share_a_group_and_a_resumed_run_its_id(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_GROUP", "iteration-1")
    monkeypatch.setenv("WANDB_PROJECT", "maths")
    for step in (1, 2):
        assert start_wandb(["wandb"], str(tmp_path / "model"), None, LOG) == ["wandb"]
        wandb.log({"train/global_step": step})
        wandb.finish()
        time.sleep(1.1)  # wandb names the directory of an offline run by id and second
    first, second = read_offline_runs(tmp_path / "model", count=2)
    for run in (first, second):
        assert (run["project"], run["group"], run["job_type"]) == ("maths", "iteration-1", "train")
        assert run["name"] == "model" and run["id"] == first["id"]
    monkeypatch.setenv("WANDB_PROJECT", "other")
    monkeypatch.setenv("WANDB_NAME", "iteration1/train")
    start_wandb(["wandb"], str(tmp_path / "model"), None, LOG)
    assert wandb.run.id != first["id"] and wandb.run.name == "iteration1/train"


def test_a_wandb_that_breaks_is_left_out_with_a_notice(tmp_path, monkeypatch, caplog):
    def fail(**_):
        raise RuntimeError("no space left")

    monkeypatch.setattr(wandb, "init", fail)
    assert start_wandb(["wandb", "tensorboard"], str(tmp_path), None, LOG) == ["tensorboard"]
    assert "wandb cannot start (no space left): it gets nothing" in caplog.text
    assert start_wandb(["wandb"], str(tmp_path), None, LOG) == ["tensorboard"]
    assert "TensorBoard's files get the numbers instead" in caplog.text


def test_trackers_that_are_not_installed_are_left_out_with_a_notice(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("fastchat.tracking.importlib.util.find_spec", lambda name: None)
    assert start_wandb(["wandb"], str(tmp_path), None, LOG) == []
    assert "wandb is not installed (pip install wandb): it gets nothing" in caplog.text


def test_training_goes_on_without_a_tracker_that_fails(case, tmp_path, monkeypatch, caplog):
    def lost(*_, **__):
        raise ConnectionResetError("Connection lost")

    monkeypatch.setattr(WandbCallback, "on_log", lost)
    entries = train(case, tmp_path / "out", "--report_to", "wandb")
    assert len(entries) == 2 and (tmp_path / "out" / "model.safetensors").is_file()
    assert caplog.text.count("WandbCallback fails (Connection lost): it gets nothing more") == 1
