"""The scripts of the paper's rows: their commands are understood, and one runs with SMOKE=1.

python -m pytest tests/journeys/test_reproduce.py
"""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from rise import lineage
from tests.support.stages import ROOT, parsed, run_program

FOLDER = ROOT / "scripts" / "reproduce"
SCRIPTS = sorted(path for path in FOLDER.glob("*.sh") if path.name != "run.sh")
STAGES = {"llama2": 13, "mistral": 5, "llama3": 5, "qwen3": 5}


def run(script, *arguments, code=0, **knobs):
    """Run a script with the interpreter of this test."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    unset = {"EXPERT", "MODEL", "OUT", "NUM_GPUS", "SMOKE", "GEN_ARGS"}
    clean = {name: value for name, value in os.environ.items() if name not in unset}
    env = clean | {"PATH": path, "VIRTUAL_ENV": "active", "OMP_NUM_THREADS": "1"} | knobs
    return run_program("bash", script, *arguments, env=env, code=code)


def commands_of(output):
    """The command lines that a dry run shows."""
    lines = [line for line in output.splitlines() if line and not line.startswith(("#", "SMOKE"))]
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_commands_have_the_published_settings_and_are_understood(script, tmp_path):
    done = run(script, "--dry-run", OUT=str(tmp_path / "out"), GEN_ARGS="--limit 3")
    commands = commands_of(done.stdout)
    assert len(commands) == STAGES[script.stem.partition("_")[0]]
    for words in commands:
        if words[0] == "python":
            assert parsed(words).env == script.stem.rpartition("_")[2]
        else:
            assert words[:3] == ["deepspeed", "--num_gpus", "4"]
            given = dict(zip(words[6::2], words[7::2], strict=True))
            assert (given["--learning_rate"], given["--num_train_epochs"]) == ("1e-5", "2")
            accumulation = int(given["--gradient_accumulation_steps"])
            assert 4 * accumulation * int(given["--per_device_train_batch_size"]) == 64
            assert (ROOT / given["--deepspeed"]).is_file()
    evaluation = parsed(commands[-1])
    assert (evaluation.max_turns, evaluation.context_window) == (5, 2)
    [*_, words] = (words for words in commands if words[1] == "workflow_gen.py")
    generation = parsed(words)
    assert generation.limit == 3
    if "llama3" in script.stem or "qwen3" in script.stem:
        assert generation.models[0] == generation.models[1]
        assert (generation.num_of_samples, generation.temperature) == ([1, 16], [1.0])
    else:
        assert generation.models[1] == "gpt-3.5-turbo"
        assert (generation.num_of_samples, generation.temperature) == ([1, 1], [1.0, 0.7])
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing_and_a_batch_is_whole(tmp_path):
    out = tmp_path / "out"
    done = run(FOLDER / "qwen3_4b_gsm8k.sh", "--dry-run", SMOKE="1", OUT=str(out))
    assert f"--model {out}-smoke/tiny" in done.stdout
    assert "--worker_args --device\\ cpu" in done.stdout and not list(tmp_path.iterdir())
    refused = run(FOLDER / "mistral_7b_gsm8k.sh", NUM_GPUS="6", code=2)
    assert "NUM_GPUS=6 does not divide BATCH=64" in refused.stderr


def test_a_smoke_run_goes_through_every_stage(tmp_path, capsys):
    run(FOLDER / "mistral_7b_math.sh", SMOKE="1", OUT=str(tmp_path / "out"))
    out = tmp_path / "out-smoke"
    trained = json.loads((out / "iteration1" / "model" / "training.json").read_text())
    assert trained["settings"]["model_name_or_path"] == str(out / "tiny")
    weights = (out / each / "model.safetensors" for each in ("tiny", "iteration1/model"))
    assert len({path.read_bytes() for path in weights}) == 2
    summary = json.loads((out / "iteration1" / "gen" / "summary.json").read_text())
    assert summary["verdicts"][1] == {"right": 4}
    assert "| iteration1 | 4 |" in (out / "comparison.md").read_text()
    assert (out / "report.html").stat().st_size > 10_000
    assert lineage.main([str(out / "eval" / "iteration1")]) == 0
    roles = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert roles == ["model", "model", "data", "log", "model", "model", "problems", "problems"]
