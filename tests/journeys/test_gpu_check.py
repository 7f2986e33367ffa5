"""`scripts/gpu_check.sh` in small, on a CPU: every check runs, also after one that failed.

python -m pytest tests/journeys/test_gpu_check.py
"""

import os
import subprocess
import sys

from tests.support.stages import ROOT, environment


def check(place, python):
    return subprocess.run(
        ["bash", ROOT / "scripts" / "gpu_check.sh"],
        env=environment(SMOKE="1", OUT=str(place / "out"), PYTHON=str(python)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_smoke_run_measures_engine_and_training(tmp_path):
    done = check(tmp_path, sys.executable)
    assert done.returncode == 0 and "All checks ran" in done.stdout, done.stdout + done.stderr
    names = {path.stem for path in (tmp_path / "out").iterdir()}
    assert names == {"environment", "engine-tiny", "training-tiny"}
    report = (tmp_path / "out" / "training-tiny.txt").read_text()
    assert "batching: prefix trees" in report
    assert all(f"\n| {name} |" in report for name in ("ours", "ours, padded", "TRL, batch 1"))


def test_a_check_that_fails_does_not_keep_the_others_from_running(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nexit $(echo "$*" | grep -c engine.py)\n')
    os.chmod(python, 0o755)
    done = check(tmp_path, python)
    assert done.returncode == 1 and "failed: engine-tiny; reports in" in done.stderr
    assert (tmp_path / "out" / "training-tiny.txt").exists()
