"""`python -m rise.compare` on runs whose numbers are worked out by hand.

python -m pytest tests/unit/rise/test_compare.py
"""

import csv
import io
import json

import pytest

from rise.compare import main
from rise.report.__main__ import main as report
from tests.support.run_dirs import write_run

# The right answer is 5. m1@t1 2/8; votes over three turns: right in problems 0, 1, 2, 3, 4, 5.
BETTER = ["r5 r5 r5"] * 2 + ["w7 r5 r5"] * 4 + ["w7 w8 w9"] * 2
# m1@t1 3/8; votes right in problems 0, 1, 2.
BASE = ["r5 r5 w7"] * 3 + ["w7 w7 w7"] * 5


@pytest.fixture
def runs(tmp_path):
    base = write_run(tmp_path / "base", *BASE)
    return [str(base), str(write_run(tmp_path / "rise", *BETTER))]


def test_the_table_has_gains_over_the_first_turn_of_the_same_run(runs, capsys):
    assert main([*runs, "--format", "csv"]) == 0
    base, rise = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (base["m1@t1"], base["m1@t3"]) == ("37.5", "37.5 (+0.0)")
    assert (rise["m1@t1"], rise["m1@t3"], rise["p1@t3"]) == ("25.0", "75.0 (+50.0)", "75.0 (+50.0)")
    assert rise["cost of m1@t3"] == "3 samples, 12 tokens"


@pytest.mark.parametrize("tool", ["compare", "report"])
def test_a_damaged_row_is_named_with_run_and_line(runs, tool, tmp_path, capsys):
    rows = tmp_path / "rise" / "rows.jsonl"
    lines = rows.read_text().splitlines()
    lines[2] = '{"task_id": 2}'
    rows.write_text("\n".join(lines) + "\n")
    if tool == "compare":
        assert main(runs) == 2
    else:
        assert report([*runs, "-o", str(tmp_path / "report.html")]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert f"rise.{tool}: error: {rows}, line 3: an episode is an object with a" in error


def test_runs_are_tested_over_the_problems_that_both_have(runs, capsys):
    assert main([*runs, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rate = found["tests"][0]["metrics"]["m1@t3"]
    # Only the second run has problems 3, 4 and 5 right; nobody but it: p = 2 * (1/2)^3.
    assert (rate["only_first"], rate["only_second"], rate["n"]) == (3, 0, 8)
    assert rate["value"] == 3 / 8
    assert rate["p_value"] == pytest.approx(0.25)


def test_turn_2_minus_a_fresh_draw_stands_among_the_differences(tmp_path, runs, capsys):
    rise = write_run(tmp_path / "more", *["r5,r5,w7 r5"] * 4, *["w7,w8,r5 r5"] * 4)
    assert main([runs[0], str(rise)]) == 0
    shown = capsys.readouterr().out
    after = [line.split()[-6:] for line in shown.splitlines() if "turn 2 - fresh draw" in line]
    assert after == [["+50.0", "+50.0", "to", "+50.0", "-", "4"]] * 2
    assert "more: turn 2 - fresh draw, after wrong" in shown and "base: turn 2" not in shown


def test_the_parallel_run_of_the_same_log_dir_gives_its_vote(tmp_path, runs, capsys):
    write_run(tmp_path / "base", *["r5,r5,w7"] * 4, *["w7,w7,r5"] * 4)
    assert main([*runs, "--format", "csv"]) == 0
    base, rise = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert base["m3@t1"] == "50.0 (+12.5)"
    assert base["cost of m3@t1"] == "3 samples, 12 tokens"
    assert rise["m3@t1"] == "-"


def test_formats(runs, capsys):
    for style, piece in (
        ("text", "rise  8   25.0  75.0 (+50.0)"),
        ("markdown", "| rise | 8 | 25.0 | 75.0 (+50.0) |"),
        ("latex", r"rise & 8 & 25.0 & 75.0 (+50.0) &"),
    ):
        assert main([*runs, "--format", style]) == 0
        assert piece in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "one", "two", "said"),
    [
        ("temperature", [1.0] * 3, [0.7] * 3, "one 1.0, two 0.7"),
        ("max_new_tokens", [8, 8, 8], [8, 40], "one 8, two [8, 40]"),  # at a later turn only
        ("max_new_tokens", [8, 8, 8], [8, 8], None),
        ("env", "gsm8k", "numeric", "one gsm8k, two numeric"),
        ("env_sha256", "0123", "4567", "one 0123, two 4567"),
        ("prompt_sha256", "89ab", "cdef", "one 89ab, two cdef"),
        ("more_prompts_sha256", None, "cdef", "one None, two cdef"),
    ],
)
def test_what_differs_besides_the_models_is_said(tmp_path, capsys, key, one, two, said):
    runs = [
        write_run(tmp_path / "one", *BASE, **{key: one}),
        write_run(tmp_path / "two", *BASE[:6], **{key: two}),
    ]
    assert main(list(map(str, runs))) == 0
    shown = capsys.readouterr().out
    assert f"the runs differ in {key}: {said}" in shown if said else key not in shown
    assert "different numbers of problems: one 8, two 6" in shown


def test_other_problems_are_refused(tmp_path, runs, capsys):
    other = write_run(tmp_path / "other", *BASE)
    rows = other / "rows.jsonl"
    rows.write_text(rows.read_text().replace('"question 3"', '"another question"'))
    assert main([runs[0], str(other)]) == 2
    assert "problem 3 of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"stage": "gen"}, "give one of workflow_eval.py"), ({"env": "chess"}, "unknown environment")],
)
def test_what_is_no_evaluation_is_refused(tmp_path, runs, capsys, settings, message):
    other = write_run(tmp_path / "other", *BASE, **settings)
    assert main([runs[0], str(other)]) == 2
    assert message in capsys.readouterr().err
