"""The four stages on real problems: 24 episodes of five turns, ZeRO-3 on two processes.

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
EPISODES = 24


def run(*command):
    """Run a command from the repository's folder; its output."""
    done = subprocess.run(
        [str(word) for word in command], cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture
def data_path(tmp_path):
    """The real test set where it is at hand, else problems of our own."""
    real = ROOT.parent / "shared" / "data" / "gsm8k" / "test.jsonl"
    if real.exists():
        return real
    path = tmp_path / "problems.jsonl"
    rows = [
        {"question": f"Ann has {i} pens and buys 2. How many?", "answer": f"{i}+2\n#### 9"}
        for i in range(EPISODES)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_generate_convert_train_and_evaluate(data_path, tmp_path):
    model = save_tiny_model(tmp_path / "tiny", max_position_embeddings=4096)
    common = ["--data_path", data_path, "--env", "gsm8k", "--max_new_tokens", "16"]
    answered = ["--limit", str(EPISODES), "--max_turns", "5", "--context_window", "2"]

    log_dir = tmp_path / "gen"
    generate = ["--log_dir", log_dir, "--num_of_samples", "1", "--models", model]
    run(sys.executable, "workflow_gen.py", *common, *answered, *generate)
    log = json.loads((log_dir / "5_turns.json").read_text())
    assert sorted(map(int, log)) == list(range(EPISODES))
    unsolved = [row for row in log.values() if row["max_reward"] < 1]
    assert all(len(row["turn_history"]["best_actions"]) == 5 for row in unsolved)
    assert len(unsolved) > EPISODES - 6, "random weights should not solve problems"

    data = tmp_path / "finetune.json"
    rule = ["--env", "gsm8k", "--criteria", "all", "--shuffle", "--model_path", model]
    run(sys.executable, "workflow_convert.py", "--filepath", log_dir, "--output", data, *rule)
    rows = json.loads(data.read_text())
    attempts = sum(len(row["turn_history"]["best_actions"]) for row in log.values())
    assert len(rows) == attempts
    short = tmp_path / "short.json"  # an epoch over 120 rows tests no more than one over 24
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
    assert metrics["m1@t5"]["n"] == EPISODES
    assert len(metrics["acc@t"]) == 5
    assert "m1@t5" in table
