"""The Slurm scripts without Slurm: a stand-in for srun, loopback addresses for the nodes.

python -m pytest tests/processes/test_slurm.py
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from fastchat.client.process import free_ports
from rise import merge
from rise.episodes.journal import load_episodes
from tests.support.servers import post, wait_for
from tests.support.stages import ROOT, environment, write_inputs
from tests.support.tiny import save_tiny_model

SCRIPTS = sorted((ROOT / "scripts" / "slurm").glob("*.sh"))
SRUN = """#!/usr/bin/env bash
# Two nodes with one task each; the first node is the one that the batch script runs on.
# As the real one since 22.05, it takes the cores of a task from this variable alone.
[ "${SRUN_CPUS_PER_TASK:?the step would get a single core}" = "$SLURM_CPUS_PER_TASK" ] || exit 9
while [[ $1 == --* ]]; do shift; done
for i in 0 1; do SLURMD_NODENAME=127.0.0.$((i + 2)) SLURM_LOCALID=0 SLURM_PROCID=$i "$@" & done
wait
"""
PROBLEMS = 30


@pytest.fixture
def place(tmp_path):
    """A folder with problems, a model, a stand-in for srun, and this Python as `python`."""
    write_inputs(tmp_path, problems=PROBLEMS)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text(SRUN)
    (tmp_path / "bin" / "srun").chmod(0o755)
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    return tmp_path


def start(place, script, *arguments, **knobs):
    path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    knobs |= {"PATH": path, "VIRTUAL_ENV": "active", "ADDRESS_FILE": str(place / "controller")}
    return subprocess.Popen(
        ["bash", ROOT / "scripts" / "slurm" / script, *arguments],
        cwd=place,
        env=environment(**knobs),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def array_task(place, number, of, **knobs):
    """The output of one task of the array that plays the shards in `place / "log"`."""
    knobs |= {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_MAX": str(of)}
    knobs |= {"DATA_PATH": str(place / "problems.jsonl"), "LOG_DIR": str(place / "log")}
    task = start(place, "array.sh", "--prompt_style", "bare", "--max_new_tokens", "8", **knobs)
    out, _ = task.communicate(timeout=120)
    assert task.returncode == 0, out
    return out


def answered(worker):
    """How many requests a worker has answered, by its own account."""
    with urllib.request.urlopen(f"{worker}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    wanted = {"rise_worker_requests_total", 'path="/worker_generate"', 'code="0"'}
    counts = [line.split() for line in lines if wanted <= set(re.split(r"[{},\s]", line))]
    return sum(float(words[-1]) for words in counts)


def test_nodes_serve_an_array_whose_shards_are_one_run(place, capsys):
    save_tiny_model(place / "tiny")
    port, worker_port = free_ports(2)
    ports = {"PORT": str(port), "WORKER_PORT": str(worker_port), "HOST": "node"}
    knobs = {**ports, "SLURMD_NODENAME": "127.0.0.1", "SLURM_CPUS_PER_TASK": "4"}
    serving = start(place, "serve.sh", "--model-path", str(place / "tiny"), **knobs)
    try:
        controller = f"http://127.0.0.1:{port}"
        workers = [f"http://127.0.0.{node}:{worker_port}" for node in (2, 3)]
        wait_for(lambda: (place / "controller").exists())
        assert (place / "controller").read_text() == f"{controller}\n"
        wait_for(lambda: serving.poll() is None and _speed(controller) == 2, seconds=120)
        models = {"MODELS": "tiny", "MAX_TURNS": "2", "NUM_OF_SAMPLES": "1 2"}
        for number in (1, 2):
            out = array_task(place, number, 2, **models)
            assert f"--shard {number}/2" in out and f"--controller_address {controller}" in out
        assert min(answered(worker) for worker in workers) > PROBLEMS / 4
        assert sum(answered(worker) for worker in workers) >= 2 * PROBLEMS
    finally:
        os.killpg(serving.pid, signal.SIGTERM)
        serving.communicate(timeout=30)
    assert not (place / "controller").exists()
    shards = [str(place / "log" / f"shard-{number}") for number in (1, 2)]
    assert merge.main([*shards, "-o", str(place / "all")]) == 0
    assert "30 of 30 episodes" in capsys.readouterr().out
    assert [episode.task_id for episode in load_episodes(place / "all")] == list(range(PROBLEMS))


def test_a_taken_port_ends_the_job_and_leaves_no_address(place):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        knobs = {"PORT": str(taken.getsockname()[1]), "SLURMD_NODENAME": "127.0.0.1"}
        serving = start(place, "serve.sh", "--model-path", "tiny", HOST="node", **knobs)
        out, _ = serving.communicate(timeout=120)
    assert serving.returncode == 1 and "the controller ended (see above); is port" in out
    assert not (place / "controller").exists()


def _speed(controller):
    try:
        return post(f"{controller}/worker_get_status")["speed"]
    except OSError:
        return None


def test_an_array_evaluates_too_and_single_tasks_can_be_submitted_again(place):
    expert = {"MODEL": f"{place / 'experts.py'}:student", "STAGE": "eval_sequential"}
    out = array_task(place, 3, 3, **expert, MAX_TURNS="2", SHARDS="4")
    assert "--shard 3/4" in out and "m1@t2" in out
    config = json.loads((place / "log" / "shard-3" / "config.json").read_text())
    assert (config["shard"], config["stage"], config["problems"]) == ("3/4", "eval", PROBLEMS)
    assert [e.task_id for e in load_episodes(place / "log" / "shard-3")] == [*range(2, 30, 4)]


def test_preempted_training_waits_to_be_requeued_and_only_then(place):
    """Slurm ends the steps first; a batch script that has ended is not requeued."""
    stand_ins = {"srun": "exit 143", "sleep": 'echo "slept $1"'}
    stand_ins["scontrol"] = 'case $2 in hostnames) echo n1;; *) echo "JobId=7 $JOB ";; esac'
    for name, text in stand_ins.items():
        (place / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / "bin" / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "n1"}
    for job, root, code, said in [
        ("PreemptTime=2026-01-01T00:00:00", ROOT, 143, "waiting to be requeued\nslept 3600\n"),
        ("PreemptTime=None", ROOT, 143, ""),
        ("", place, 2, f"finetune.sh: {place} is not the repository"),
    ]:
        job = start(place, "finetune.sh", JOB=job, SLURM_SUBMIT_DIR=str(root), **slurm)
        out, _ = job.communicate(timeout=30)
        assert job.returncode == code and (said in out if said else out == ""), out


def test_the_scripts_are_clean():
    found = shutil.which("shellcheck") or shutil.which(
        "shellcheck", path=Path(sys.executable).parent
    )
    if found is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([found, *SCRIPTS], capture_output=True, text=True)
    assert len(SCRIPTS) == 3 and done.returncode == 0, done.stdout
