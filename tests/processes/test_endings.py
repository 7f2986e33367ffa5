"""Ctrl-C, as a terminal sends it: exit code 130 and one line, whatever the run is waiting for.

pytest tests/processes/test_endings.py
"""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from rise.episodes.journal import load_episodes
from tests.support.scripted_servers import Wire
from tests.support.servers import alive, wait_for
from tests.support.stages import begin, command, environment, write_inputs
from tests.support.tiny import save_tiny_model

LIMIT = 60.0
"""Seconds after which a run must have ended; what it waits for takes an hour."""


def start(place, *arguments):
    return subprocess.Popen(
        command("workflow_eval.py", "--log_dir", "log", *arguments),
        cwd=place,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def interrupt(process, to_group):
    """Send SIGINT to the group, as a terminal does, or to the process alone; what it then says."""
    (os.killpg if to_group else os.kill)(process.pid, signal.SIGINT)
    try:
        out, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    return out


@pytest.mark.parametrize("to_group", [True, False])
def test_interrupt_while_requests_hang(tmp_path, to_group):
    write_inputs(tmp_path)
    with Wire(lambda _: 3600.0) as wire:
        address = ("--controller_address", wire.url)
        process = start(tmp_path, "--model", "student", *address)
        wait_for(lambda: len(wire.requests) == 12)
        out = interrupt(process, to_group)
    assert "Interrupted: 0 of 12 episodes are in log; the same command goes on" in out


def test_sigterm_is_an_interrupt_and_keeps_what_is_finished(tmp_path):
    write_inputs(tmp_path)
    run = ("--max_turns", 2, "--models", "experts.py:student", "experts.py:teacher")
    run += ("--log_dir", "run", "--concurrency", 1)
    process = begin(tmp_path, "workflow_gen.py", *run, rows=2, STUDENT_SECONDS="0.2")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, err
    assert "Interrupted: " in out and "the same command goes on" in out
    assert "Traceback" not in err
    assert len(load_episodes(tmp_path / "run")) >= 2


def test_interrupt_while_a_worker_loads_its_model(tmp_path):
    write_inputs(tmp_path)
    save_tiny_model(tmp_path / "model")
    process = start(tmp_path, "--model", "model")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def commands():
        return [
            Path(f"/proc/{child}/cmdline").read_text() for child in children.read_text().split()
        ]

    # Forked and begun: a child that is interrupted in between says so in words of Python's.
    wait_for(lambda: sum("fastchat.serve" in command for command in commands()) == 2)
    workers = children.read_text().split()
    out = interrupt(process, to_group=True)
    assert "Interrupted: 0 of 12 episodes" in out
    wait_for(lambda: not any(alive(pid) for pid in workers))
