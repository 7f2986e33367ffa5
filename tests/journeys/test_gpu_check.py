"""`scripts/gpu_check.sh` in small, on a CPU: every check runs, also after one that failed.

python -m pytest tests/journeys/test_gpu_check.py
"""

import importlib
import sys
from pathlib import Path

from tests.support.stages import ROOT, environment, run_main, run_program

STAND_IN = """#!/bin/sh
case $1 in *.py) echo "$*" >>"$OUT.calls" ;; esac
[ "$(echo "$*" | grep -c "${FAILS:-no such check}")" = 0 ] || { echo "$SAYS"; exit 1; }
case $1 in *engine.py) printf '%s\\n' '| rows | tok/s |' '|---|---|' '| 64 | 12 (to 13) |' ;; esac
"""


def check(place, code=0, **more):
    """Run the script with a stand-in for Python; (what it did, the commands that it gave)."""
    python, out = place / "python", place / "out"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    env = environment(SMOKE="1", OUT=str(out), PYTHON=str(python), **more)
    done = run_program("bash", ROOT / "scripts" / "gpu_check.sh", env=env, code=code)
    calls = place / "out.calls"
    lines = calls.read_text().splitlines() if calls.is_file() else []
    return done, [line.split() for line in lines]


def test_the_smoke_run_measures_engine_and_training(tmp_path):
    done, commands = check(tmp_path)
    assert "All checks ran" in done.stdout
    names = {path.stem for path in (tmp_path / "out").iterdir()}
    assert names == {"environment", "parity-tiny", "engine-tiny", "training-tiny", "report"}
    report = (tmp_path / "out" / "report.md").read_text()
    assert report in done.stdout and report.startswith("| check | | |\n|---|---|---|\n")
    assert " s) | 64 rows | 12 (to 13) tok/s |\n" in report
    assert "| vllm-tiny | skipped | no vLLM is found" in report
    parity, engine, training = (
        run_main(importlib.import_module(Path(words[0]).stem).main, *words) for words in commands
    )
    assert "| worker and model, log-probability |" in parity.stdout
    assert "\n| 4 | " in engine.stdout and "batching: prefix trees" in training.stdout
    assert all(
        f"\n| {name} |" in training.stdout for name in ("ours", "ours, padded", "TRL, batch 1")
    )
    assert "FlashAttention | left out: it needs a GPU |" in training.stdout


def test_a_check_that_fails_does_not_keep_the_others_from_running(tmp_path):
    said = "ModuleNotFoundError: No module named 'flash_attn.ops'"
    done, commands = check(tmp_path, code=1, FAILS="parity_gpu.py", SAYS=said)
    assert "failed: parity-tiny; what they said" in done.stderr
    names = ["parity_gpu.py", "engine.py", "training_gpu.py"]
    assert [Path(words[0]).name for words in commands] == names
    report = (tmp_path / "out" / "report.md").read_text()
    assert f" s) | failed | {said}: pip install flash-attn |\n" in report and "64 rows" in report


def test_a_package_that_is_missing_costs_its_own_row(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    words = ("--size", "tiny", "--device", "cpu")
    training = importlib.import_module("training_gpu")
    monkeypatch.setattr(training, "ours", lambda model, **_: lambda: None)
    done = run_main(training.main, "training_gpu.py", *words, "--rows", "2", "--runs", "1")
    assert "\n| TRL, batch 1 | left out: pip install trl |" in done.stdout
    monkeypatch.setitem(sys.modules, "training_modes", None)
    parity = importlib.import_module("parity_gpu").main
    done = run_main(parity, "parity_gpu.py", *words, code=1)
    assert "worker and model, log-probability | 0 |" in done.stdout
    assert "gradient norms | failed: ModuleNotFoundError: " in done.stdout
    assert "; pip install training-modes |" in done.stdout


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    done, commands = check(tmp_path, code=2)
    assert "name another folder with OUT=" in done.stderr and not commands


def test_checks_end_when_the_time_is_over(tmp_path):
    _, commands = check(tmp_path, code=1, LIMIT="5")
    assert not commands
    report = (tmp_path / "out" / "report.md").read_text()
    assert report.count("| skipped | LIMIT=5 s are over |") == 4
