"""Many episodes at a time: no error, little memory, whatever the shell's limit of open files is.

python -m pytest tests/scripts/test_driver_scale.py
"""

import resource

import pytest

from scripts.benchmarks import driver_scale

SOFT_LIMIT = 128


@pytest.fixture
def few_files():
    """A limit of open files below the number of connections, as a shell may set it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT_LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_hundreds_of_episodes_are_in_flight_at_once(tmp_path, few_files):
    arguments = ["--workers", "2", "--concurrency", "200", "--turns", "2", "--seconds", "0.5"]
    args = driver_scale.parse_args(arguments)
    with driver_scale.servers(args) as controller:
        cost = driver_scale.drive(tmp_path, controller, args, problems=600)
    # `drive` raises unless every episode was finished without an error.
    assert (cost.requests, cost.problems) == (1200, 600)
    assert cost.memory_mb < 300


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
