"""summary.json of a run that takes several calls.

pytest tests/test_summary.py
"""

import json

import pytest

from tests.stages import call, write_inputs

MODEL = ("--max_turns", 1, "--models", "experts.py:unwilling", "--log_dir", "run")
"""Answers half of the problems until the file `willing` is there."""


@pytest.fixture
def place(tmp_path):
    write_inputs(tmp_path)
    return tmp_path


def gen(place, *arguments):
    return call(place, "workflow_gen.py", *MODEL, *arguments)


def test_kill_between_the_last_row_and_the_summary_leaves_no_old_summary(place):
    summary = place / "run" / "summary.json"
    assert gen(place).returncode == 1
    of_half = summary.read_bytes()
    (place / "willing").touch()
    assert gen(place).returncode == 0
    of_all = json.loads(summary.read_text())
    # What the kill would have left: every row, and the summary of the call before.
    summary.write_bytes(of_half)
    again = gen(place)
    assert again.returncode == 0 and "nobody was asked" in again.stdout
    found = json.loads(summary.read_text())
    assert found["counts"] == {"problems": 12, "finished": 12, "owed": 0}
    assert found["success_by_turn"] == of_all["success_by_turn"]
    assert found["config"]["kinds"] == ["function"]
    # Half a summary is none.
    summary.write_bytes(of_half[:50])
    assert gen(place).returncode == 0
    assert json.loads(summary.read_text())["counts"]["owed"] == 0
