"""The quickstart at a hundredth of its size, and the commands of the loops over its stages.

    python -m pytest tests/journeys/test_quickstart.py

So few chats and problems teach the model nothing; the effect itself is measured with the full
script (docs/benchmarks.md), not here.
"""

import json
import os

import pytest

from scripts.quickstart import study
from tests.support.stages import ROOT, planned, run_program, value
from tests.support.training_data import record

pytestmark = pytest.mark.usefixtures("venv")
SMALL = {"CHATS": "128", "PROBLEMS": "16", "TEST": "8", "EPOCHS": "1"}


def quickstart(out, script="quickstart.sh", code=0, **knobs):
    """Run a script; what it printed."""
    env = os.environ | SMALL | {"OUT": str(out)} | knobs
    return run_program("bash", f"scripts/{script}", cwd=ROOT, env=env, code=code)


def test_the_quickstart_runs_and_a_study_reads_it(tmp_path):
    out = tmp_path / "seed0"
    stdout = quickstart(out).stdout
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
    rise, control = (record(out / name)["steps"] for name in ("rise", "control"))
    assert rise == control > 0

    assert study.main([str(tmp_path), "--seeds", "0", "--models", "base", "control", "rise"]) == 0
    rates = json.loads((tmp_path / "study.json").read_text())
    assert rates["rise"]["m1@t5"]["by_seed"] == {"0": results["rise"]["m1@t5"]["value"]}

    assert "give another OUT" in quickstart(out, TEST="17", code=2).stderr


@pytest.mark.parametrize(
    ("expert", "models", "samples"),
    [("self", "{rise} {rise}", "1 16"), ("program", "{rise} data/arithmetic.py:expert", "1 1")],
)
def test_a_study_teaches_its_second_iteration_as_the_first(tmp_path, expert, models, samples):
    variants = "iteration2 grouped all-none"
    knobs = {"EXPERT": expert, "SEEDS": "0", "VARIANTS": variants, "ROLLOUTS": "2"}
    made, seed = planned(tmp_path, "study.sh", **knobs), tmp_path / "log" / "seed0"
    asked = made["seed0/iteration2_gen1"]
    assert value(asked, "--models") == models.format(rise=seed / "rise")
    assert value(asked, "--num_of_samples") == samples and "--correct_to_correct" in asked
    pooled = [seed / name for name in ("gen1", "gen2", "iteration2_gen1", "iteration2_gen2")]
    assert value(made["seed0/iteration2.json"], "--filepath") == " ".join(map(str, pooled))
    assert value(made["seed0/all-none.json"], "--weighting") == "none"
    for name in variants.split():
        words = made[f"seed0/{name}"]
        assert value(words, "--max_steps") == "3"
        assert ("--group_trajectories" in words) == (name == "grouped")
        data = "finetune" if name == "grouped" else name
        assert value(words, "--data_path") == f"{seed}/{data}.json"


def test_a_study_of_real_sh_trains_its_variants_from_the_warm_start_of_the_first_seed(tmp_path):
    knobs = {"LOOP": "real", "SEEDS": "4 7", "VARIANTS": "all-none", "DTYPE": "bfloat16"}
    made = planned(tmp_path, "study.sh", **knobs, EXPERT="self", COOLER="0.5", ITERATIONS="2")
    study = tmp_path / "log"
    assert "seed4/warm" in made and "seed7/warm" not in made
    for seed in (4, 7):
        words = made[f"seed{seed}/all-none"]
        assert value(words, "--model_name_or_path") == f"{study}/seed4/warm"
        assert value(words, "--max_steps") == "3" and value(words, "--bf16") == "True"
        assert value(words, "--per_device_train_batch_size") == "30"
        student = f"{study}/seed4/warm"
        assert value(made[f"seed{seed}/gen1-1"], "--models") == f"{student} {student}"
        student = f"{study}/seed{seed}/rise1"
        assert value(made[f"seed{seed}/gen2-1"], "--models") == f"{student} {student}"
        assert value(made[f"seed{seed}/eval/rise-cooler"], "--temperature") == "0.5"
    logs = " ".join(f"{study}/seed7/gen{i}-{j}" for i in (1, 2) for j in (1, 2))
    assert value(made["seed7/all-none.json"], "--filepath") == logs


@pytest.mark.parametrize(
    ("script", "knob"),
    [
        ("quickstart.sh", "EPOCHS=${EPOCHS:-4} "),
        ("study.sh", "SEEDS=${SEEDS:-0 1 2 3 4}"),
        ("real.sh", "ROLLOUTS=${ROLLOUTS:-2} "),
        ("gpu_check.sh", "SIZES=${SIZES:-1b 7b} "),
        ("check_vllm.sh", "PROBLEMS=${PROBLEMS:-48} "),
        ("check_clients.sh", "CLIENTS=${CLIENTS:-litellm "),
    ],
)
def test_arguments_start_nothing(tmp_path, script, knob):
    words = ("bash", ROOT / "scripts" / script)
    env = os.environ | {"OUT": str(tmp_path / "out")}
    assert f"\n{knob}" in run_program(*words, "--help", env=env).stdout
    other = run_program(*words, "x", env=env, code=2)
    assert f"{script}: takes no arguments, not 'x'" in other.stderr
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
        ("real.sh", "DEVICE", "tpu", "must be cpu or cuda, not 'tpu'"),
        ("real.sh", "TEST", "0", "must be above 0"),
    ],
)
def test_an_unknown_choice_is_refused(tmp_path, script, knob, value, remedy):
    done = quickstart(tmp_path / "out", script, code=2, **{knob: value})
    assert done.stderr == f"{script}: {knob} {remedy}\n"
    assert not (tmp_path / "out").exists()
