"""Two nodes on this machine train what one process does, launched as on a Slurm cluster.

python -m pytest tests/processes/test_nodes.py
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastchat.train.train import main
from tests.support.servers import free_port
from tests.support.training_data import make_case

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SECONDS = 300

SRUN = """#!/bin/sh
# As the real one since 22.05, it takes the cores of a task from this variable alone.
[ "${SRUN_CPUS_PER_TASK:?the step would get a single core}" = "$SLURM_CPUS_PER_TASK" ] || exit 9
shift # --kill-on-bad-exit=1
SLURM_NODEID=0 "$@" & first=$!
SLURM_NODEID=1 "$@" & second=$!
wait $first && wait $second
"""
"""Starts the command once per node, as srun does with one task per node."""

SCONTROL = '#!/bin/sh\n[ "$*" = "show hostnames node[1-2]" ] && printf "127.0.0.1\\nnode2\\n"\n'

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS)]


def environment(case, output, **changes):
    """The knobs of the scripts, on a machine without GPUs, in an environment of their own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RANK", "LOCAL_", "WANDB"))}
    knobs = {"MODEL": str(case[0]), "DATA_PATH": str(case[1]), "OUTPUT_DIR": str(output)}
    knobs |= {"NUM_GPUS": "1", "MASTER_PORT": str(free_port()), "REPORT_TO": "none"}
    knobs |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    knobs |= {"VIRTUAL_ENV": str(BIN.parent), "SLURM_SUBMIT_DIR": str(ROOT)}
    return kept | knobs | changes


def run(script, settings, *more):
    """Run a script to its end; returns what it printed."""
    process = subprocess.Popen(
        ["bash", str(ROOT / "scripts" / script), *more],
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, printed[-4000:]
    return printed


def log(output):
    record = json.loads((output / "training.json").read_text())
    assert record["status"] == "finished"
    entries = [entry for entry in record["log_history"] if "loss" in entry]
    return record, [(entry["loss"], entry["grad_norm"]) for entry in entries]


def test_two_nodes_on_slurm_train_what_one_process_does(tmp_path):
    case = make_case(tmp_path, count=16)
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (stand_ins / name).write_text(text)
        (stand_ins / name).chmod(0o755)
    path = os.pathsep.join([str(stand_ins), str(BIN), os.environ["PATH"]])
    slurm = {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[1-2]", "PATH": path}
    slurm["SLURM_CPUS_PER_TASK"] = "1"
    flags = ["--bf16", "False", "--max_steps", "2", "--learning_rate", "1e-3"]
    printed = run("slurm/finetune.sh", environment(case, tmp_path / "two", **slurm), *flags)

    launched = next(line for line in printed.splitlines() if line.startswith("+ torchrun"))
    words = shlex.split(launched)
    assert words[words.index("--master_addr") + 1] == "127.0.0.1"
    own = words[words.index("--model_name_or_path") :]
    own += ["--output_dir", str(tmp_path / "one"), "--gradient_accumulation_steps", "8"]
    assert main(own) == 0

    (record, losses), (_, expected) = log(tmp_path / "two"), log(tmp_path / "one")
    assert (record["processes"], record["settings"]["zero_stage"]) == (2, 3)
    assert len(losses) == 2
    for values, others in zip(losses, expected, strict=True):
        assert values == pytest.approx(others, rel=1e-5)
