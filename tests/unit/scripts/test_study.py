"""The numbers of a study over seeds, by hand.

python -m pytest tests/unit/scripts/test_study.py
"""

import json

import pytest

from scripts.quickstart import study
from scripts.quickstart.study import main

MODELS = ["--models", "base", "control", "rise"]


@pytest.fixture
def directory(tmp_path):
    for seed, value in (("0", 0.4), ("1", 0.6)):
        for name in ("base", "control", "rise"):
            run = tmp_path / f"seed{seed}" / "eval" / name
            run.mkdir(parents=True)
            rates = {metric: {"value": value} for metric in study.METRICS}
            rates["m1@t5"]["value"] = value + 0.1 * (name == "rise")
            (run / "summary.json").write_text(json.dumps({"metrics": rates}))
    return tmp_path


def test_means_and_intervals_are_over_seeds(directory, capsys):
    assert main([str(directory), "--seeds", "0", "1", *MODELS]) == 0
    found = json.loads((directory / "study.json").read_text())
    assert found["base"]["m1@t1"]["value"] == pytest.approx(0.5)
    assert found["rise"][study.GAIN]["value"] == pytest.approx(0.1)
    # Two values 0.2 apart: t(0.975, 1) * 0.1 = 12.706 * 0.1
    assert found["base"]["m1@t1"]["high"] - 0.5 == pytest.approx(1.2706, abs=1e-3)
    written = (directory / "study.md").read_text()
    assert "| m1@t5 of seed | 0 | 1 |" in written and "| rise | 50.0 | 70.0 |" in written
    assert "mean over 2 seeds" in capsys.readouterr().out


def test_one_seed_has_no_interval(directory):
    assert main([str(directory), "--seeds", "1", *MODELS]) == 0
    written = (directory / "study.md").read_text()
    assert "| rise | 60.0 | 60.0 | 70.0 | 60.0 | +10.0 |  |" in written
    assert "| base | 60.0 | 60.0 | 60.0 | 60.0 | +0.0 | -10.0 |" in written


def test_a_variant_is_held_against_rise_seed_by_seed(directory, capsys):
    assert main([str(directory), "--seeds", "0", "1", *MODELS]) == 0
    versus = json.loads((directory / "study.json").read_text())["base"][study.VERSUS]
    assert versus["by_seed"] == {"0": pytest.approx(-0.1), "1": pytest.approx(-0.1)}
    # The seeds differ by 20 points, the difference does not.
    assert versus["low"] == pytest.approx(-0.1) == versus["high"]
    assert "-10.0 (-10.0 to -10.0)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("missing", "named"), [("m5@t1", "m5@t1"), ("metrics", "m1@t1, m5@t1, m1@t5, p1@t5")]
)
def test_a_missing_metric_is_one_line_with_run_and_metric(directory, missing, named, capsys):
    path = directory / "seed1" / "eval" / "rise" / "summary.json"
    summary = json.loads(path.read_text())
    summary.pop(missing, None)
    summary.get("metrics", {}).pop(missing, None)
    path.write_text(json.dumps(summary))
    assert main([str(directory), "--seeds", "0", "1", *MODELS]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and f"{path} has no {named}: run" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "0", "1", "0", *MODELS], "--seeds: 0 would count twice"),
        (["--seeds", "0", *MODELS, "a", "a", "rise"], "--models: a, rise would count twice"),
        (["--seeds", "0", "--models", "base"], "--models needs rise"),
    ],
)
def test_what_is_named_twice_or_missing_is_refused(directory, flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(directory), *flags])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert not (directory / "study.json").exists()


def test_a_missing_evaluation_is_one_line(directory, capsys):
    assert main([str(directory), "--seeds", "0", "2", *MODELS]) == 2
    assert "seed2/eval/base/summary.json is missing" in capsys.readouterr().err
