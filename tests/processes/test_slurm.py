"""The Slurm scripts on Slurm itself: two nodes on this machine, jobs that others preempt.

python -m pytest tests/processes/test_slurm.py
"""

import os
import socket
import sys
from pathlib import Path

import pytest

from fastchat.client.process import free_ports
from fastchat.train.train import main
from rise import merge
from rise.episodes.journal import load_episodes
from tests.support.cluster import NODES, SECONDS, slurm
from tests.support.servers import post, wait_for
from tests.support.stages import ROOT, environment, run_program, write_inputs
from tests.support.tiny import save_tiny_model
from tests.support.training_data import figures, make_case, record

SCRIPTS = ROOT / "scripts" / "slurm"
SMALL = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0")
PROBLEMS = 60

pytestmark = pytest.mark.timeout(3 * SECONDS)


@pytest.fixture(scope="module")
def cluster():
    with slurm() as running:
        yield running


def knobs(**more):
    """The environment of a job: this Python, one thread, no GPU."""
    folder = Path(sys.executable).parent
    path = f"{folder}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin"
    more |= {"PATH": path, "VIRTUAL_ENV": str(folder.parent), "CUDA_VISIBLE_DEVICES": ""}
    return environment(HF_HUB_OFFLINE="1", WANDB_MODE="offline", **more)


def preempt(cluster, job):
    """Let a job of higher priority take the nodes for a moment."""
    other = cluster.submit(
        *("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=6", "--output=/dev/null"),
        *("--wrap", "sleep 1"),
    )
    cluster.reaches(other, "COMPLETED")
    cluster.reaches(job, "RUNNING", 1)


def rows(run):
    path = run / "rows.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_an_array_survives_scancel_requeue_and_the_preemption_of_who_serves(cluster, tmp_path):
    write_inputs(tmp_path, problems=PROBLEMS)
    save_tiny_model(tmp_path / "tiny")
    port, worker_port = free_ports(2)
    controller, address = f"http://{NODES[0]}:{port}", tmp_path / "controller"
    shared = {"ADDRESS_FILE": str(address), "HOST": "node", "STUDENT_SECONDS": "2"}
    shared |= {"PORT": str(port), "WORKER_PORT": str(worker_port), "MAX_TURNS": "2"}
    shared |= {"NUM_OF_SAMPLES": "1 2", "DATA_PATH": str(tmp_path / "problems.jsonl")}
    shared |= {"MODELS": f"{tmp_path / 'experts.py'}:student tiny"}
    flags = ("--prompt_style", "bare", "--max_new_tokens", "8", "--concurrency", "2")

    serving = cluster.submit(
        *(*SMALL, "--gpus-per-task=0", "--cpus-per-task=4", "--partition=serve"),
        *(f"--output={cluster.place}/serve.log", SCRIPTS / "serve.sh"),
        *("--model-path", tmp_path / "tiny"),
        **knobs(**shared),
    )

    status = f"{controller}/worker_get_status"
    wait_for(lambda: post(status)["speed"] == len(NODES), SECONDS)
    assert address.read_text() == f"{controller}\n"

    def submit(numbers, log, **more):
        return cluster.submit(
            *(f"--array={numbers}", "--cpus-per-task=1", "--open-mode=append"),
            *(f"--output={cluster.place}/array-%a.log", SCRIPTS / "array.sh", *flags),
            **knobs(**shared | {"LOG_DIR": str(log), **more}),
        )

    undisturbed = submit("1", tmp_path / "undisturbed", STUDENT_SECONDS="0")
    cluster.reaches(f"{undisturbed}_1", "COMPLETED")

    array = submit("1-3", tmp_path / "log")
    shards = [tmp_path / "log" / f"shard-{number}" for number in (1, 2, 3)]
    wait_for(lambda: min(map(rows, shards)) >= 3, SECONDS)
    cluster.run("scancel", f"{array}_1")
    cluster.run("scontrol", "requeue", f"{array}_2")
    again = submit("1", tmp_path / "log", SHARDS="3")
    preempt(cluster, serving)
    assert max(map(rows, shards)) < PROBLEMS / 3
    for job, restarts in ((f"{again}_1", 0), (f"{array}_2", 1), (f"{array}_3", 0)):
        cluster.reaches(job, "COMPLETED", restarts)
    assert cluster.state(f"{array}_1") == ("CANCELLED", 0)
    cluster.run("scancel", serving)
    wait_for(lambda: not address.exists(), SECONDS)

    assert "trying again" in (cluster.place / "array-3.log").read_text()
    assert all(b'"error": {' not in (shard / "rows.jsonl").read_bytes() for shard in shards)
    assert merge.main([*map(str, shards), "-o", str(tmp_path / "all")]) == 0
    found = load_episodes(tmp_path / "all")
    assert found == load_episodes(tmp_path / "undisturbed" / "shard-1")
    assert [episode.task_id for episode in found] == list(range(PROBLEMS))


def test_training_that_is_preempted_saves_is_requeued_and_has_the_same_losses(cluster, tmp_path):
    """NUM_GPUS is not given on nodes without GPUs: a process on each."""
    model, data = make_case(tmp_path, count=16)
    shared = {"MODEL": str(model), "DATA_PATH": str(data), "OUTPUT_DIR": str(tmp_path / "out")}
    shared |= {"MASTER_PORT": str(free_ports(1)[0]), "REPORT_TO": "none", "ACCUMULATION": "4"}
    flags = ["--bf16", "False", "--max_steps", "50", "--learning_rate", "1e-4"]
    log = cluster.place / "finetune.log"
    job = cluster.submit(
        *(*SMALL, "--cpus-per-task=4", "--partition=train", f"--output={log}"),
        *(SCRIPTS / "finetune.sh", *flags),
        **knobs(**shared),
    )
    wait_for(lambda: log.exists() and "'loss'" in log.read_text(), SECONDS)
    preempt(cluster, job)
    # Slurm 24.11 starts it once more after it has ended; there is nothing left to do.
    cluster.reaches(job, "COMPLETED", 1, 2)
    printed = log.read_text()
    assert "stopped after step" in printed and "resuming from" in printed, printed
    assert record(tmp_path / "out")["processes"] == 2

    own = ["--model_name_or_path", model, "--data_path", data, "--output_dir", tmp_path / "one"]
    own += ["--report_to", "none", "--lr_scheduler_type", "cosine", "--warmup_ratio", "0.04"]
    own += ["--per_device_train_batch_size", "8", "--logging_steps", "1", "--save_strategy", "no"]
    assert main([str(word) for word in [*own, *flags]]) == 0
    for key in ("loss", "grad_norm"):
        expected = figures(tmp_path / "one", key)
        assert figures(tmp_path / "out", key) == pytest.approx(expected, rel=1e-4)


def test_what_keeps_a_job_from_its_work_is_one_line(tmp_path):
    def refusal(code, script, **variables):
        words = ("bash", SCRIPTS / script, "--model-path", "tiny")
        return run_program(*words, env=knobs(**variables), timeout=SECONDS, code=code).stderr

    for script in ("serve.sh", "finetune.sh"):
        said = refusal(2, script, SLURM_SUBMIT_DIR=str(tmp_path))
        assert f"{tmp_path} is not the repository" in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = {"PORT": str(taken.getsockname()[1]), "SLURMD_NODENAME": "127.0.0.1"}
        place |= {"HOST": "node", "ADDRESS_FILE": str(tmp_path / "controller")}
        assert "the controller ended (see above); is port" in refusal(1, "serve.sh", **place)
    assert not (tmp_path / "controller").exists()
