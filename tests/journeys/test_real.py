"""`scripts/real.sh` with stand-ins for Python: what each stage is asked for, and where it reads.

    python -m pytest tests/journeys/test_real.py

The stages are those of scripts/quickstart.sh, which tests/journeys/test_quickstart.py runs; its
environment is in tests/unit/scripts/test_calculator.py, its checkpoint in
tests/unit/data/test_smollm2.py, and the effect in docs/real.md.
"""

from tests.support.stages import planned, value


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
