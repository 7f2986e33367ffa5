"""The four stages on real problems: 64 episodes of five turns, ZeRO-3 on two processes.

    python -m pytest tests/journeys/test_pipeline.py

The model has random weights, so nothing is learned; what is tested is that everything fits
together: real questions, worked examples and feedback, a controller and a worker, conversion,
DeepSpeed, and the evaluation of the checkpoint by its path.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import free_port
from tests.support.tiny import save_tiny_model

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
PROBLEMS = {
    "gsm8k": {"question": "Ann has {i} pens and buys 2. How many?", "answer": "{i}+2\n#### 9"},
    "math": {"problem": "What is ${i} + 2$?", "solution": "It is $\\boxed{{9}}$."},
}


def run(*command):
    """Run a command from the repository's folder; its output."""
    done = subprocess.run(
        [str(word) for word in command], cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(params=["gsm8k", "math"])
def problems(request, tmp_path):
    """Environment and problem file: the real test set where it is at hand, else our own."""
    real = SHARED / request.param / "test.jsonl"
    if real.exists():
        return request.param, real
    path = tmp_path / "problems.jsonl"
    with path.open("w") as file:
        for i in range(64):
            row = {k: v.format(i=i) for k, v in PROBLEMS[request.param].items()}
            file.write(json.dumps(row) + "\n")
    return request.param, path


def test_generate_convert_train_and_evaluate(problems, tmp_path):
    env, data_path = problems
    model = save_tiny_model(tmp_path / "tiny", max_position_embeddings=4096)
    common = ["--data_path", data_path, "--env", env, "--max_new_tokens", "16"]
    answered = ["--limit", "64", "--max_turns", "5", "--context_window", "2"]

    log_dir = tmp_path / "gen"
    generate = ["--log_dir", log_dir, "--num_of_samples", "1", "--models", model]
    run(sys.executable, "workflow_gen.py", *common, *answered, *generate)
    log = json.loads((log_dir / "5_turns.json").read_text())
    assert sorted(map(int, log)) == list(range(64))
    unsolved = [row for row in log.values() if row["max_reward"] < 1]
    assert all(len(row["turn_history"]["best_actions"]) == 5 for row in unsolved)
    assert len(unsolved) > 50, "random weights should not solve problems"

    data = tmp_path / "finetune.json"
    rule = ["--env", env, "--criteria", "all", "--shuffle", "--model_path", model]
    run(sys.executable, "workflow_convert.py", "--filepath", log_dir, "--output", data, *rule)
    rows = json.loads(data.read_text())
    attempts = sum(len(row["turn_history"]["best_actions"]) for row in log.values())
    assert len(rows) == attempts
    short = tmp_path / "short.json"  # an epoch over 320 rows tests no more than one over 24
    short.write_text(json.dumps(rows[:24]))

    trained = tmp_path / "trained"
    launcher = Path(sys.executable).with_name("deepspeed")
    run(
        *[launcher, "--num_accelerators", "2", "--master_port", str(free_port())],
        *["FastChat/fastchat/train/train_mem.py", "--deepspeed", "deepspeed/zero3.json"],
        *["--model_name_or_path", model, "--data_path", short, "--output_dir", trained],
        *["--num_train_epochs", "1", "--per_device_train_batch_size", "2"],
        *["--gradient_accumulation_steps", "2", "--model_max_length", "2048"],
        *["--learning_rate", "1e-3", "--logging_steps", "1", "--report_to", "none"],
    )
    assert json.loads((trained / "training.json").read_text())["steps"] == 3

    evaluate = ["--log_dir", tmp_path / "eval", "--num_of_samples", "1", "--model", trained]
    table = run(sys.executable, "workflow_eval.py", *common, *answered, *evaluate)
    metrics = json.loads((tmp_path / "eval" / "summary.json").read_text())["metrics"]
    assert metrics["m1@t5"]["n"] == 64
    assert len(metrics["acc@t"]) == 5
    assert "m1@t5" in table
