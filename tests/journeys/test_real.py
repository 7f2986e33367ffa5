"""`scripts/real.sh` with a handful of problems: what its stages are asked for, and all of them run.

    python -m pytest tests/journeys/test_real.py

The checkpoint of 135 million parameters is left to tests/unit/data/test_smollm2.py, a warm start to
tests/journeys/test_quickstart.py, whose stages are these, and the effect to docs/real.md.
"""

import json
import os

import pytest

from tests.support.stages import ROOT, planned, run_program, value
from tests.support.tiny import save_tiny_model


def real(code=0, **knobs):
    env = os.environ | {name: str(value) for name, value in knobs.items()}
    return run_program("bash", ROOT / "scripts" / "real.sh", env=env, code=code)


def test_every_stage_reads_what_another_one_makes(tmp_path):
    knobs = {"DATA": "words", "ANSWER": "equation", "SMOKE": "1", "DTYPE": "float32"}
    made, out = planned(tmp_path, "real.sh", **knobs), tmp_path / "log"
    asked = made["gen1-1"]
    assert value(asked, "--env") == "scripts/real/calculator.py:Equation"
    assert value(asked, "--models") == f"{out}/warm scripts/real/calculator.py:expert"
    assert value(asked, "--data_path") == f"{out}/data/generate.jsonl"
    assert value(made["rise.json"], "--filepath") == f"{out}/gen1-1"
    assert value(made["control.json"], "--match_tokens") == f"{out}/rise.json"
    assert value(made["rise"], "--model_name_or_path") == f"{out}/warm"
    assert {value(made[name], "--bf16") for name in ("warm", "rise", "control")} == {"False"}
    assert value(made["eval/rise_other"], "--shown_attempts") == f"{out}/eval/rise"
    assert value(made["eval/control-cooler"], "--temperature") == "0.5"
    assert value(made["report.html"], "--names").startswith("base warm start control RISE ")


@pytest.mark.usefixtures("venv")
def test_every_stage_after_the_warm_start_runs_in_small(tmp_path):
    base, out = tmp_path / "tiny", tmp_path / "out"
    save_tiny_model(base, max_position_embeddings=2048)
    knobs = {"SMOKE": 1, "DATA": "words", "ANSWER": "equation", "COOLER": ""}
    knobs |= {"MODEL": base, "WARM": base, "OUT": out}
    done = real(**knobs)
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
    assert matched["total"] == pytest.approx(matched["budget"], rel=0.1)  # to half a row
    assert rise["attempts"] == rise["rows"] + sum(rise["dropped"].values())
    told = [json.loads(line) for line in (out / "eval" / "rise" / "rows.jsonl").open()]
    assert "That is incorrect. Try again." in str(told[0]["dialogue"])
    assert "give another OUT" in real(**knobs, SEED=1, code=2).stderr
