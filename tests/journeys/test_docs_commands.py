"""The commands of the pages that start from the README's log and data run.

    python -m pytest tests/journeys/test_docs_commands.py

As they are written, in a copy of the repository: tests/support/documented.py.
"""

import re

import pytest

from tests.support import documented
from tests.support.readme_commands import GENERATED, PAGES, ROOT, TRAINED, commands

ELSEWHERE = {command.text for command in commands(TRAINED)}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with (
        documented.world(tmp_path_factory.mktemp("world")) as place,
        pytest.MonkeyPatch.context() as patch,
    ):
        for command in documented.given():
            place.perform(command, patch)
        yield place


@pytest.mark.parametrize(
    "command",
    [c for c in commands(GENERATED) if documented.runs_here(c) and c.text not in ELSEWHERE],
    ids=lambda c: c.text[:70],
)
def test_the_command_runs(command, world, monkeypatch):
    world.perform(command, monkeypatch)


def test_what_does_not_run_here_is_named_with_its_test():
    for pattern, why in documented.ELSEWHERE.items():
        assert any(re.search(pattern, command.text) for command in commands(PAGES)), pattern
        for test in re.findall(r"tests/\S+\.py", why):
            assert (ROOT / test).is_file(), test
