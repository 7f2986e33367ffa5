"""Many episodes at a time: no error, little memory, whatever the shell's limit of open files is.

python -m pytest tests/journeys/test_driver_scale.py
"""

import resource
import subprocess
import sys

import pytest

from scripts.benchmarks import driver_scale
from tests.support.stages import environment

SOFT_LIMIT = 128


@pytest.fixture
def few_files():
    """A limit of open files below the number of connections, as a shell may set it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT_LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_hundreds_of_episodes_are_in_flight_at_once(few_files):
    command = [sys.executable, driver_scale.__file__, "--workers", "2", "--concurrency", "200"]
    command += ["--problems", "400", "--turns", "2", "--seconds", "0.5", "--repeats", "1"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    # It fails unless every episode was finished without an error.
    assert done.returncode == 0, done.stderr
    cells = done.stdout.splitlines()[-1].split(" | ")
    assert cells[:2] == ["| 400", "800"]
    assert 20 < float(cells[-1].split()[0]) < 300


def test_the_cost_of_a_request_leaves_out_the_start():
    runs = [
        (100, 200, 2.0, 4.0, 100.0),
        (1100, 2200, 4.0, 9.0, 120.0),
        (1100, 2200, 6.0, 9.0, 99.0),
    ]
    *_, small, large = driver_scale.table([driver_scale.Cost(*run) for run in runs]).splitlines()
    assert (
        small == "| 100 | 200 | 4.00 (4.00 to 4.00) | 2.00 (2.00 to 2.00) | - | 100 (100 to 100) |"
    )
    assert "| 1.50 (1.00 to 2.00) | 110 (99 to 120) |" in large
