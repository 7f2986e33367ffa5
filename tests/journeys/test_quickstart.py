"""The quickstart at a hundredth of its size: every stage, its results; then the study of that seed.

    python -m pytest tests/journeys/test_quickstart.py

So few chats and problems teach the model nothing; the effect itself is measured with the full
script (docs/benchmarks.md), not here.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("venv")
SMALL = {"CHATS": "128", "PROBLEMS": "16", "TEST": "8", "EPOCHS": "1"}


def quickstart(out, script="quickstart.sh", **knobs):
    """Run a script; what it printed."""
    env = os.environ | SMALL | {"OUT": str(out)} | knobs
    done = subprocess.run(
        ["bash", f"scripts/{script}"], cwd=ROOT, env=env, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_the_quickstart_runs_and_a_study_goes_on_from_it(tmp_path):
    out = tmp_path / "seed0"
    code, stdout, stderr = quickstart(out)
    assert code == 0, stdout[-3000:] + stderr[-3000:]
    results = json.loads((out / "results.json").read_text())
    for key in ("base", "sft", "rise"):
        assert {"m1@t1", "m1@t5", "m5@t1", "p1@t5"} <= results[key].keys()
        assert set(results[key]["m1@t5"]) == {"value", "low", "high", "n"}
        assert results[key]["m1@t5"]["n"] == 8
        assert len(results[key]["acc@t"]) == 5
    assert (out / "accuracy.png").stat().st_size > 10_000
    assert "RISE report: base and control and RISE" in (out / "report.html").read_text()
    assert "Causal check" in stdout and len(stdout.splitlines()) <= 70, stdout
    assert "   train-control " in stdout and "   eval-rise_other " in stdout
    steps = [
        json.loads((out / name / "training.json").read_text())["steps"]
        for name in ("rise", "control")
    ]
    assert steps[0] == steps[1] > 0

    weights = out / "rise" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    knobs = {"SEEDS": "0", "VARIANTS": "all-none"}
    code, stdout, stderr = quickstart(tmp_path, "study.sh", **knobs)
    assert code == 0, stdout[-3000:] + stderr[-3000:]
    assert weights.stat().st_mtime_ns == before
    assert "finished; nothing to do" in (out / "logs" / "train-rise.log").read_text()
    study = json.loads((tmp_path / "study.json").read_text())
    assert list(study) == ["base", "control", "rise", "all-none"]
    assert study["rise"]["m1@t5"]["by_seed"] == {"0": results["rise"]["m1@t5"]["value"]}
    trained = json.loads((out / "all-none" / "training.json").read_text())
    assert trained["steps"] == steps[0]
    assert (tmp_path / "study.md").read_text().count("\n") == 6 + 1 + 6

    code, _, stderr = quickstart(out, TEST="17")
    assert code == 2
    assert "give another OUT" in stderr


GENERATED = ("gen1", "gen2", "iteration2_gen1", "iteration2_gen2")
FINISHED = """
mkdir -p "$OUT/rise" "$OUT"/{,iteration2_}gen{1,2}
echo '{"steps": 3}' >"$OUT/rise/training.json"
"""
"""What is left of a finished quickstart, for the study, and what its second iteration makes."""


def studied(place, loop, finished=FINISHED, **knobs):
    """Where study.sh has run, with stand-ins for the script of a seed and for what stages call."""
    for name in ("study.sh", "stages.sh", f"{loop}/stages.sh"):
        target = place / "scripts" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "scripts" / name, target)
    (place / "scripts" / f"{loop}.sh").write_text(finished)
    python = place / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/bash\n[ "$1" != -c ] || exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    subprocess.run(
        ["bash", place / "scripts" / "study.sh"],
        env=os.environ | knobs | {"LOOP": loop, "OUT": str(place / "log"), "VENV": "."},
        capture_output=True,
        check=True,
    )
    return place / "log"


@pytest.mark.parametrize(
    ("expert", "models", "samples"),
    [("self", "{rise} {rise}", "1 16"), ("program", "{rise} data/arithmetic.py:expert", "1 1")],
)
def test_the_second_iteration_of_a_study_is_taught_as_the_first(tmp_path, expert, models, samples):
    knobs = {"EXPERT": expert, "SEEDS": "0", "VARIANTS": "iteration2 grouped", "ROLLOUTS": "2"}
    seed = studied(tmp_path, "quickstart", **knobs) / "seed0"
    lines = (seed / "logs" / "iteration2_gen1.log").read_text().splitlines()
    [asked] = [line for line in lines if "workflow_gen.py" in line]
    assert f"--models {models.format(rise=seed / 'rise')} --correct_to_correct" in asked
    assert f"--num_of_samples {samples} --models" in asked
    pooled = " ".join(f"{seed / name}" for name in GENERATED)
    converted = (seed / "logs" / "convert-iteration2.log").read_text()
    assert f" --filepath {pooled} --output " in converted
    for name in ("iteration2", "grouped"):
        log = (seed / "logs" / f"train-{name}.log").read_text()
        assert "--max_steps 3" in log
        assert ("--group_trajectories True" in log) == (name == "grouped")


def test_a_study_of_real_sh_trains_its_variants_from_the_warm_start_of_the_first_seed(tmp_path):
    said = 'echo "$SEED $ROLLOUTS $MODEL $WARM" >"$OUT/said"\n'
    knobs = {"SEEDS": "4 7", "VARIANTS": "all-none", "DTYPE": "bfloat16"}
    study = studied(tmp_path, "real", FINISHED + said, **knobs)
    first = f"{study}/seed4"
    assert (study / "seed4" / "said").read_text() == "4 2  \n"
    assert (study / "seed7" / "said").read_text() == f"7 2 {first}/base {first}/warm\n"
    log = (study / "seed7" / "logs" / "train-all-none.log").read_text()
    assert f"--model_name_or_path {first}/warm" in log and "--max_steps 3" in log
    assert "--per_device_train_batch_size 30" in log and "--bf16 True" in log
    converted = (study / "seed7" / "logs" / "convert-all-none.log").read_text()
    assert f"--weighting none --filepath {study}/seed7/gen1 {study}/seed7/gen2" in converted


@pytest.mark.parametrize(
    ("script", "knob"),
    [
        ("quickstart.sh", "EPOCHS=${EPOCHS:-4} "),
        ("study.sh", "SEEDS=${SEEDS:-0 1 2 3 4}"),
        ("real.sh", "ROLLOUTS=${ROLLOUTS:-2} "),
        ("gpu_check.sh", "SIZES=${SIZES:-1b 7b} "),
        ("check_vllm.sh", "PROBLEMS=${PROBLEMS:-48} "),
        ("check_clients.sh", "CLIENTS=${CLIENTS:-openai "),
    ],
)
def test_arguments_start_nothing(tmp_path, script, knob):
    words = ["bash", ROOT / "scripts" / script]
    environment = os.environ | {"OUT": str(tmp_path / "out")}
    told = subprocess.run([*words, "--help"], env=environment, capture_output=True, text=True)
    assert told.returncode == 0 and f"\n{knob}" in told.stdout
    other = subprocess.run([*words, "x"], env=environment, capture_output=True, text=True)
    assert other.returncode == 2 and f"{script}: takes no arguments, not 'x'" in other.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("script", "knob", "value", "remedy"),
    [
        ("quickstart.sh", "EXPERT", "teacher", "must be program or self, not 'teacher'"),
        ("quickstart.sh", "SIZE", "huge", "must be small, medium or large, not 'huge'"),
        ("quickstart.sh", "DEVICE", "tpu", "must be cpu or cuda, not 'tpu'"),
        ("quickstart.sh", "PROBLEMS", "0", "must be above 0"),
        ("quickstart.sh", "PROBLEMS", "many", "must be a whole number, not 'many'"),
        ("real.sh", "EXPERT", "teacher", "must be reference or self, not 'teacher'"),
        ("real.sh", "DATA", "math", "must be asdiv, gsm8k or words, not 'math'"),
        ("real.sh", "TEST", "0", "must be above 0"),
    ],
)
def test_an_unknown_choice_is_refused(tmp_path, script, knob, value, remedy):
    code, _, stderr = quickstart(tmp_path / "out", script, **{knob: value})
    assert (code, stderr.strip()) == (2, f"{script}: {knob} {remedy}")
    assert not (tmp_path / "out").exists()
