"""`scripts/real.sh` with a handful of problems and a tiny model: every stage, its results.

    python -m pytest tests/journeys/test_real.py

The checkpoint of 135 million parameters is left to tests/unit/data/test_smollm2.py, and the effect
to a run of the script (docs/real.md).
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.tiny import save_tiny_model

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("venv")


def real(**knobs):
    return subprocess.run(
        ["bash", ROOT / "scripts" / "real.sh"],
        env=os.environ | {name: str(value) for name, value in knobs.items()},
        capture_output=True,
        text=True,
    )


def test_every_stage_after_the_warm_start_runs_in_small(tmp_path):
    """That one's commands are those of tests/journeys/test_quickstart.py's study of real.sh."""
    base, out = tmp_path / "tiny", tmp_path / "out"
    save_tiny_model(base, max_position_embeddings=2048)
    knobs = {
        "SMOKE": 1,
        "DATA": "words",
        "ANSWER": "equation",
        "COOLER": "",
        "MODEL": base,
        "WARM": base,
        "OUT": out,
    }
    done = real(**knobs)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(done.stdout.splitlines()) <= 70, done.stdout
    results = json.loads((out / "results.json").read_text())
    counts = {key: results[key]["m1@t5"]["n"] for key in ("sft", "rise")}
    assert counts == {"sft": 8, "rise": 8}
    assert (out / "accuracy.png").stat().st_size > 10_000
    assert "RISE report: control and RISE" in (out / "report.html").read_text()
    assert "RISE" in (out / "comparison.md").read_text()
    rise, control = (
        json.loads((out / f"{name}.json.report.json").read_text()) for name in ("rise", "control")
    )
    matched = control["match_tokens"]
    assert 0.8 * matched["budget"] < matched["total"] <= matched["budget"]
    assert rise["attempts"] == rise["rows"] + sum(rise["dropped"].values())
    told = [json.loads(line) for line in (out / "eval" / "rise" / "rows.jsonl").open()]
    assert "That is incorrect. Try again." in str(told[0]["dialogue"])

    other = real(**knobs, SEED=1)
    assert other.returncode == 2 and "give another OUT" in other.stderr
