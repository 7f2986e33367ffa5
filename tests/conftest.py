"""What holds for the whole suite: interrupts reach child processes, slow files come first."""

import os
import signal
import sys

import pytest

from tests.support.stages import write_inputs

SLOW = (
    "test_slurm.py",
    "test_documented_commands.py",
    "test_quickstart.py",
    "test_launchers.py",
    "test_reproduce.py",
    "test_rise_sh.py",
    "test_real.py",
    "test_kill.py",
    "test_vllm_server.py",
    "test_gpu_check.py",
    "test_convert_for_trl.py",
)
"""Files that take longest, in this order. Begun last, one of them would run alone at the end."""


def pytest_configure() -> None:
    """Undo an ignored SIGINT, which a suite in the background inherits and hands to its children.

    The tests of Ctrl-C would wait for programs that cannot be interrupted.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list) -> None:
    """Put the tests of the slow files first; the order within a file stays."""
    rank = {name: place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: rank.get(item.path.name, len(SLOW)))


@pytest.fixture
def place(tmp_path):
    """A directory with twelve problems and the experts of tests/support/stages.py."""
    write_inputs(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def same_environment():
    """Launch variables that a run sets for itself do not reach the next test."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True)
def no_process_group_is_left():
    """A process group that a trainer's arguments joined in this process ends with their test."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
