"""What workflow_convert.py refuses, and what it leaves as it is.

python -m pytest tests/test_convert_refusals.py
"""

import json

import pytest

import workflow_convert
from rise.sketch import sketch
from tests.test_workflow_convert import write_run


def convert(*arguments) -> int:
    return workflow_convert.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("name", ["", "rows.jsonl", "2_turns.json"])
def test_an_evaluation_is_refused_unless_allowed(name, tmp_path, capsys):
    write_run(tmp_path / "run", sketch("w7 r5"), stage="eval")
    arguments = ("--filepath", tmp_path / "run" / name, "--output", tmp_path / "data.json")
    assert convert(*arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert f"--filepath {tmp_path / 'run' / name} is an evaluation" in error
    assert "stage eval" in error and "--allow_evaluations" in error
    assert not (tmp_path / "data.json").exists()
    assert convert(*arguments, "--allow_evaluations") == 0


def test_a_generated_run_is_no_evaluation(tmp_path):
    write_run(tmp_path / "run", sketch("w7 r5"), stage="gen")
    assert convert("--filepath", tmp_path / "run", "--output", tmp_path / "data.json") == 0
    assert len(json.loads((tmp_path / "data.json").read_text())) == 2
