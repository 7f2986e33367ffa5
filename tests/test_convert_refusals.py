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


def test_remove_duplication_drops_rows_and_changes_no_text(tmp_path):
    episodes = sketch("w7 w8 w7 r5")
    texts = [" seven\n", "eight ", "seven", "\nfive"]
    for turn, text in zip(episodes[0].turns, texts, strict=True):
        turn.actions[turn.chosen] = text
    write_run(tmp_path / "run", episodes, turns=4)
    answers = {}
    for flag in ("", "--remove_duplication"):
        output = tmp_path / f"data{flag}.json"
        assert convert("--filepath", tmp_path / "run", "--output", output, *flag.split()) == 0
        rows = json.loads(output.read_text())
        answers[flag] = [row["conversations"][-1]["value"] for row in rows]
    assert answers[""] == texts
    assert answers["--remove_duplication"] == [" seven\n", "eight ", "\nfive"]
    history = [turn["value"] for turn in rows[-1]["conversations"] if turn["from"] == "gpt"]
    assert history == [" seven\n", "eight ", "\nfive"]
