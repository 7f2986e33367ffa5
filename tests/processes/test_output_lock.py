"""One training per output directory: a second one is refused, what a dead one left is not minded.

python -m pytest tests/processes/test_output_lock.py
"""

import errno
import fcntl
import os
import signal
import sys
import time

import pytest

from fastchat.train import run_record
from fastchat.train.run_record import LOCK
from fastchat.train.train import main
from tests.processes.test_launchers import SCRIPT, SECONDS, start
from tests.support.training_data import command, make_case


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return make_case(tmp_path_factory.mktemp("case"))


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(run_record, "LOCK_WAIT", 0.2)


@pytest.mark.timeout(SECONDS)
def test_a_directory_in_which_another_run_trains_is_refused_until_that_ends(
    case, tmp_path, capsys, monkeypatch, impatient
):
    output, deadline = tmp_path / "out", time.monotonic() + SECONDS
    words = command(case, output, "--num_train_epochs", "300", "--save_total_limit", "2")
    running = start([sys.executable, SCRIPT, *words])
    while not list(output.glob("checkpoint-*/complete.json")):
        assert running.poll() is None and time.monotonic() < deadline, running.communicate()[0]
        time.sleep(0.02)
    said = f"another process is training in {output}: wait for it, or name another --output_dir\n"
    for more in ([], ["--learning_rate", "5e-4"], ["--overwrite_output_dir"]):
        assert main([*words, *more]) == 2
        assert capsys.readouterr().err == f"train_mem.py: error: {said}"
    assert running.poll() is None
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert (output / LOCK).exists()
    assert main([*words, "--learning_rate", "5e-4"]) == 2
    assert "learning_rate (was 0.001, is 0.0005)" in capsys.readouterr().err
    assert not (output / LOCK).exists()


def test_a_file_system_without_locks_is_a_notice(case, tmp_path, monkeypatch, caplog):
    def unknown(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", unknown)
    assert main(command(case, tmp_path / "out", "--max_steps", "1")) == 0
    assert "cannot be locked ([Errno 38] Function not implemented)" in caplog.text
