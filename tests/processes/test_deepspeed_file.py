"""The DeepSpeed file: what in it decides the result, and what contradicts the arguments.

python -m pytest tests/processes/test_deepspeed_file.py
"""

import json
import sys

import pytest

from fastchat.train.train import main
from tests.processes.test_launchers import ROOT, SECONDS, arguments, assert_same_run
from tests.support.servers import ENVIRONMENT
from tests.support.stages import run_program
from tests.support.training_data import make_case

pytestmark = pytest.mark.timeout(SECONDS)
PROGRAM = """
import contextlib, io, json, sys, torch
from fastchat.train import launch
launch.name_accelerator()
# DeepSpeed goes on with the groups of its first run.
torch.distributed.destroy_process_group = lambda *_: None
from fastchat.train.arguments import parse
from fastchat.train.checks import contradictions
from fastchat.train.train import main

file, runs = sys.argv[1], json.load(sys.stdin)
for name, (content, words) in runs.items():
    with open(file, "w") as opened:
        json.dump(content, opened)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        # What --check asks, in one process, before a launcher starts any number of them.
        code = contradictions(parse(words)) if name == "asked" else main(words)
    runs[name] = [code, printed.getvalue()]
with open(file, "w") as opened:
    json.dump(runs, opened)
launch.leave(0)
"""
WARMUP = {"warmup_min_lr": "auto", "warmup_max_lr": "auto", "warmup_num_steps": "auto"}


def schedule(**changes):
    return {"scheduler": {"type": "WarmupLR", "params": WARMUP | changes}}


RUNS = {
    "first": {},
    "again": {"steps_per_print": 5, "zero_optimization": {"stage": 2}},
    "another": schedule(),
    "contradicts": schedule(warmup_max_lr=0.05) | {"gradient_clipping": 5},
    "steps": schedule(warmup_num_steps=4),
    "asked": {"train_batch_size": 64},
    "batch": {"train_batch_size": 64},
}
"""What a run changes in zero2.json, all in one process; the first three share an output."""
BATCH = ("--per_device_train_batch_size", "8")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def said(place):
    """Exit code and output of each run of one step."""
    case, file = make_case(place, count=22), place / "ds.json"
    content = json.loads((ROOT / "deepspeed/zero2.json").read_text())
    runs = {}
    for name, changes in RUNS.items():
        output = place / ("out" if name in ("first", "again", "another") else name)
        words = arguments(case, output, "--max_steps", "1", "--deepspeed", file)
        runs[name] = content | changes, [str(word) for word in words]
    content = json.loads((ROOT / "deepspeed/zero3_offload.json").read_text())
    words = arguments(case, place / "zero3", *BATCH, "--deepspeed", file)
    runs["zero3"] = content, [str(word) for word in words]
    how = {"input": json.dumps(runs), "env": {**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""}}
    run_program(sys.executable, "-c", PROGRAM, file, **how)
    return json.loads(file.read_text())


def test_another_optimizer_schedule_or_clipping_is_another_run(said):
    assert said["first"][0] == 0
    code, printed = said["again"]
    assert code == 0 and "is finished; nothing to do" in printed
    code, printed = said["another"]
    assert code == 2 and "deepspeed_scheduler (was None, is {'type': 'WarmupLR'" in printed
    assert "Traceback" not in printed


def test_what_contradicts_the_arguments_is_said_before_anything_is_loaded(said, place):
    code, printed = said["contradicts"]
    assert code == 2 and "data: " not in printed
    for entry, argument in (
        ("gradient_clipping=5", "max_grad_norm=1.0"),
        ("scheduler.params.warmup_max_lr=0.05", "learning_rate=0.001"),
    ):
        line = f'--deepspeed {place}/ds.json: {entry} contradicts {argument}: write "auto" there\n'
        assert line in printed, printed
    code, printed = said["steps"]
    assert code == 2 and "attention: " not in printed and "Traceback" not in printed
    entry = "scheduler.params.warmup_num_steps=4 contradicts warmup_steps=1: "
    assert f"--deepspeed {place}/ds.json: {entry}" in printed
    assert not any((place / name).exists() for name in ("contradicts", "steps"))


def test_a_batch_of_all_processes_is_compared_where_these_are_known(said):
    assert said["asked"][0] == []
    code, printed = said["batch"]
    assert code == 2
    assert "train_batch_size=64 contradicts train_batch_size (calculated)=8" in printed
    assert "attention: " not in printed


def test_without_a_launcher_zero3_trains_in_one_process(said, place):
    assert said["zero3"][0] == 0, said["zero3"][1]
    words = arguments((place / "model", place / "finetune.json"), place / "plain", *BATCH)
    assert main([str(word) for word in words]) == 0
    assert_same_run(place / "zero3", place / "plain", rel=1e-5)
