"""The commands of README and docs run.

    python -m pytest tests/journeys/test_documented_commands.py

As they are written, in a copy of the repository: tests/support/documented.py.
"""

import re
import shutil

import pytest

from tests.support import documented
from tests.support.offline_wandb import read_offline_run
from tests.support.readme_commands import PAGES, ROOT, commands
from tests.support.training_data import figures, record


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with documented.world(tmp_path_factory.mktemp("world")) as place:
        yield place


@pytest.mark.parametrize(
    "command",
    [command for command in commands(PAGES) if documented.runs_here(command)],
    ids=lambda command: command.text[:70],
)
def test_the_command_runs(command, world, monkeypatch):
    base, rise = (world.directory / "log" / name for name in ("base", "rise"))
    if rise.exists() and not base.exists():
        shutil.copytree(rise, base)  # docs/reports.md compares two runs
    world.perform(command, monkeypatch)


def test_the_published_training_is_tracked_offline(world):
    output = world.directory / "checkpoints" / "rise"
    settings = record(output)["settings"]
    assert settings["zero_stage"] == 3 and settings["bf16"]
    rows = read_offline_run(output)["history"]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses == pytest.approx(figures(output)) and losses


def test_what_does_not_run_here_is_named_with_its_test():
    for pattern, why in documented.ELSEWHERE.items():
        assert any(re.search(pattern, command.text) for command in commands(PAGES)), pattern
        for test in re.findall(r"tests/\S+\.py", why):
            assert (ROOT / test).is_file(), test
