"""The DeepSpeed file: what in it decides the result, and what contradicts the arguments.

python -m pytest tests/processes/test_deepspeed_file.py
"""

import json
import sys

import pytest

from tests.processes.test_launchers import ROOT, SCRIPT, SECONDS, arguments, start
from tests.support.training_data import make_case

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS)]
CHECK = """
import sys
sys.path.insert(0, "FastChat")
from fastchat.train import launch
launch.name_accelerator()
from fastchat.train.arguments import parse
from fastchat.train.checks import contradictions
print("found:", contradictions(parse(sys.argv[1:])))
"""
"""What --check asks, in one process, before a launcher starts any number of them."""
WARMUP = {"warmup_min_lr": "auto", "warmup_max_lr": "auto", "warmup_num_steps": "auto"}


@pytest.fixture
def train(tmp_path):
    """Trains one step with a file that has these entries; exit code and output."""
    case, file = make_case(tmp_path), tmp_path / "ds.json"
    content = json.loads((ROOT / "deepspeed/zero2.json").read_text())

    def once(*program, **changes):
        program = program or [SCRIPT]
        file.write_text(json.dumps(content | changes))
        more = ["--max_steps", "1", "--deepspeed", file]
        process = start([sys.executable, *program, *arguments(case, tmp_path / "out", *more)])
        printed, _ = process.communicate(timeout=SECONDS)
        return process.returncode, printed

    return once


def test_another_optimizer_schedule_or_clipping_is_another_run(train):
    assert train()[0] == 0
    code, printed = train(steps_per_print=5, zero_optimization={"stage": 2})
    assert code == 0 and "is finished; nothing to do" in printed
    code, printed = train(scheduler={"type": "WarmupLR", "params": WARMUP})
    assert code == 2 and "deepspeed_scheduler (was None, is {'type': 'WarmupLR'" in printed
    assert "Traceback" not in printed


def test_what_contradicts_the_arguments_is_said_before_anything_is_loaded(train, tmp_path):
    file = tmp_path / "ds.json"
    scheduler = {"type": "WarmupLR", "params": WARMUP | {"warmup_max_lr": 0.05}}
    code, printed = train(scheduler=scheduler, gradient_clipping=5)
    assert code == 2 and "data: " not in printed
    for entry, argument in (
        ("gradient_clipping=5", "max_grad_norm=1.0"),
        ("scheduler.params.warmup_max_lr=0.05", "learning_rate=0.001"),
    ):
        said = f'--deepspeed {file}: {entry} contradicts {argument}: write "auto" there\n'
        assert said in printed, printed
    scheduler["params"] = WARMUP | {"warmup_num_steps": 4}
    code, printed = train(scheduler=scheduler)
    assert code == 2 and "attention: " not in printed and "Traceback" not in printed
    said = f"--deepspeed {file}: scheduler.params.warmup_num_steps=4 contradicts warmup_steps=1: "
    assert said in printed and not (tmp_path / "out").exists()


def test_a_batch_of_all_processes_is_compared_where_these_are_known(train):
    code, printed = train("-c", CHECK, train_batch_size=64)
    assert code == 0 and "found: []" in printed, printed
    code, printed = train(train_batch_size=64)
    assert (
        code == 2 and "train_batch_size=64 contradicts train_batch_size (calculated)=8" in printed
    )
    assert "attention: " not in printed
