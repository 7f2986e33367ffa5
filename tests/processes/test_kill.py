"""kill -9 at any moment: real runs against a real controller and a real worker.

python -m pytest tests/processes/test_kill.py
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastchat.client.process import free_ports
from rise.episodes.journal import load_episodes
from tests.support.servers import alive, post, wait_for
from tests.support.stages import begin, call, command, environment, write_inputs
from tests.support.tiny import save_tiny_model

GEN = "workflow_gen.py"
KILLS = 8
PROBLEMS = 120
EXACT_WORKER = """
import asyncio, sys, torch
from fastchat.model import model_adapter
from fastchat.serve import model_worker
# With 64 bits the rounding that depends on the other rows of a batch stays far below any choice
# that sampling makes from it, so that two runs can be compared text by text.
model_adapter.pick_dtype = lambda *_: torch.float64
generate = model_worker.ModelWorker.generate

async def slowly(self, prepared):
    await asyncio.sleep(0.05)  # so that no machine finishes the run before the last kill
    return await generate(self, prepared)

model_worker.ModelWorker.generate = slowly
sys.exit(model_worker.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def controller(checkpoint):
    """The URL of a controller with one worker of the model `tiny`; both survive every run."""
    ports = free_ports(2)
    url, worker_url = (f"http://127.0.0.1:{port}" for port in ports)
    controller_command = ["-m", "fastchat.serve.controller", "--host", "127.0.0.1"]
    worker_command = ["-c", EXACT_WORKER, "--host", "127.0.0.1", "--worker-address", worker_url]
    worker_command += ["--controller-address", url, "--model-path", str(checkpoint)]
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments, "--port", str(port)],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for arguments, port in zip((controller_command, worker_command), ports, strict=True)
    ]
    try:
        wait_for(lambda: post(f"{url}/list_models")["models"] == ["tiny"])
        yield url
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _kill_at_random(place, journal, rng, arguments, kill):
    """Start the run in a session of its own, kill -9 it; whether it was still running."""
    process = subprocess.Popen(
        command(GEN, *arguments),
        cwd=place,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    if kill % 4 == 0:  # anywhere, start-up included
        time.sleep(rng.uniform(0, 0.8))
    else:
        before = journal.stat().st_size if journal.exists() else 0
        wait_for(
            lambda: (
                process.poll() is not None or (journal.exists() and journal.stat().st_size > before)
            )
        )
        time.sleep(rng.uniform(0, 0.1))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return process.returncode == -signal.SIGKILL


def test_kills_lose_nothing_and_change_nothing(controller, tmp_path):
    write_inputs(tmp_path, problems=PROBLEMS)
    journal = tmp_path / "run" / "rows.jsonl"
    shared = ("--max_turns", 2, "--num_of_samples", 1, 2, "--models", "tiny")
    shared += ("--max_new_tokens", 8, "--controller_address", controller)
    arguments = (*shared, "--log_dir", "run")
    rng = random.Random(5)
    killed, sizes = 0, set()
    for kill in range(KILLS):
        killed += _kill_at_random(tmp_path, journal, rng, (*arguments, "--concurrency", 4), kill)
        sizes.add(journal.stat().st_size if journal.exists() else 0)
    assert killed == KILLS and len(sizes) > KILLS // 2, (killed, sizes)
    call(tmp_path, GEN, *arguments)
    call(tmp_path, GEN, *shared, "--log_dir", "undisturbed")
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    assert sorted(row["task_id"] for row in rows) == list(range(PROBLEMS))
    for name in ("rows.jsonl", "2_turns.json"):
        ours, theirs = (load_episodes(tmp_path / run / name) for run in ("run", "undisturbed"))
        assert ours == theirs
    ours, theirs = (
        json.loads((tmp_path / run / "summary.json").read_text()) for run in ("run", "undisturbed")
    )
    for key in ("success_by_turn", "verdicts", "length_share", "usage", "errors", "counts"):
        assert ours[key] == theirs[key]


def test_workers_of_a_killed_run_die_with_it_and_the_run_goes_on(checkpoint, tmp_path):
    write_inputs(tmp_path, problems=20)
    arguments = ("--max_turns", 1, "--models", checkpoint, "--max_new_tokens", 400)
    arguments += ("--concurrency", 4, "--log_dir", "run", "--worker_args", "--device cpu")
    process = begin(tmp_path, GEN, *arguments, rows=3)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2 and all(alive(pid) for pid in children)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: not any(alive(pid) for pid in children))
    rows = (tmp_path / "run" / "rows.jsonl").read_bytes()
    call(tmp_path, GEN, *arguments, "--concurrency", 16)
    journal = (tmp_path / "run" / "rows.jsonl").read_bytes()
    assert journal.startswith(rows[: rows.rfind(b"\n") + 1]) and rows.count(b"\n") < 20
    assert [episode.task_id for episode in load_episodes(tmp_path / "run")] == list(range(20))
