"""The commands of the README, and of the pages that serve, train and evaluate, run.

    python -m pytest tests/journeys/test_readme_commands.py

As they are written, in a copy of the repository: tests/support/documented.py.
"""

import shutil

import pytest

from tests.support import documented
from tests.support.readme_commands import TRAINED, commands


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with documented.world(tmp_path_factory.mktemp("world")) as place:
        yield place


@pytest.mark.parametrize(
    "command",
    [command for command in commands(TRAINED) if documented.runs_here(command)],
    ids=lambda command: command.text[:70],
)
def test_the_command_runs(command, world, monkeypatch):
    base, rise = (world.directory / "log" / name for name in ("base", "rise"))
    if rise.exists() and not base.exists():
        shutil.copytree(rise, base)  # docs/reports.md compares two runs
    world.perform(command, monkeypatch)
