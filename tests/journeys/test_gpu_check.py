"""`scripts/gpu_check.sh` in small, on a CPU: every check runs, also after one that failed.

python -m pytest tests/journeys/test_gpu_check.py
"""

import importlib
import subprocess
from pathlib import Path

from tests.support.stages import ROOT, environment, run_main

STAND_IN = """#!/bin/sh
[ "$1" = -m ] || echo "$*" >>"$OUT.calls"
exit $(echo "$*" | grep -c "${FAILS:-no such check}")
"""


def check(place, **more):
    """Run the script with a stand-in for Python; (what it did, the commands that it gave)."""
    python, out = place / "python", place / "out"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    env = environment(SMOKE="1", OUT=str(out), PYTHON=str(python), **more)
    words = ["bash", ROOT / "scripts" / "gpu_check.sh"]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    return done, [line.split() for line in (place / "out.calls").read_text().splitlines()]


def test_the_smoke_run_measures_engine_and_training(tmp_path):
    done, commands = check(tmp_path)
    assert done.returncode == 0 and "All checks ran" in done.stdout, done.stdout + done.stderr
    names = {path.stem for path in (tmp_path / "out").iterdir()}
    assert names == {"environment", "parity-tiny", "engine-tiny", "training-tiny", "report"}
    report = (tmp_path / "out" / "report.md").read_text()
    assert report in done.stdout and "vllm-tiny: skipped, no vLLM is found" in report
    assert report.count(": ok, ") == 4
    parity, engine, training = (
        run_main(importlib.import_module(Path(words[0]).stem).main, *words) for words in commands
    )
    assert parity.returncode == engine.returncode == training.returncode == 0
    assert "| worker and model, log-probability |" in parity.stdout
    assert "\n| 4 | " in engine.stdout and "batching: prefix trees" in training.stdout
    assert all(
        f"\n| {name} |" in training.stdout for name in ("ours", "ours, padded", "TRL, batch 1")
    )


def test_a_check_that_fails_does_not_keep_the_others_from_running(tmp_path):
    done, commands = check(tmp_path, FAILS="engine.py")
    assert done.returncode == 1 and "failed: engine-tiny; reports in" in done.stderr
    names = ["parity_gpu.py", "engine.py", "training_gpu.py"]
    assert [Path(words[0]).name for words in commands] == names
