"""A small fine-tuning set and a tiny checkpoint, for the tests of training."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.tiny import save_tiny_model

REWARDS = (1, 0, -1, 0, 1)


def row(index: int, turns: int = 1, reward: int = 1, weight: float | None = None) -> dict[str, Any]:
    """A row of workflow_convert.py's form: `turns` attempts, the last of them trained."""
    question = f"What is {index} + {index + 1}?"
    conversations: list[dict[str, Any]] = [{"from": "human", "value": question, "loss": 0.0}]
    for turn in range(turns - 1):
        wrong = f"I think it is {turn}. " * (turn + 1)
        conversations.append({"from": "gpt", "value": wrong, "loss": 0.0})
        conversations.append({"from": "human", "value": f"Wrong. {question}", "loss": 0.0})
    weight = math.exp(reward / 0.4) if weight is None else weight
    answer = f"It is \\boxed{{{2 * index + 1}}}." * (1 + index % 3)
    conversations.append({"from": "gpt", "value": answer, "loss": weight})
    return {
        "id": f"0-{index}-{turns}",
        "conversations": conversations,
        "reward": reward,
        "weight": weight,
        "task_id": index,
        "turn": turns,
        "opening": 1,
    }


def rows(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Rows with one to three turns and all rewards."""
    return [
        row(i, 1 + i % 3, **{"reward": REWARDS[i % len(REWARDS)], **changes}) for i in range(count)
    ]


def write_rows(path: Path, content: list[dict[str, Any]]) -> Path:
    """Write rows as a fine-tuning file and return its path."""
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def make_case(directory: Path, count: int = 10, **changes: Any) -> tuple[Path, Path]:
    """A tiny model and a fine-tuning file in `directory`: their paths."""
    model = save_tiny_model(directory / "model", template="chatml", **changes)
    return model, write_rows(directory / "finetune.json", rows(count))


def in_float64(model: Any) -> Any:
    """The model with norms that compute in float64; transformers rounds in them to float32."""

    def norm(module: Any, hidden: Any) -> Any:
        gemma = type(module).__name__.startswith("Gemma")
        epsilon = module.eps if gemma else module.variance_epsilon
        scale = 1 + module.weight if gemma else module.weight
        return scale * hidden * (hidden.pow(2).mean(-1, keepdim=True) + epsilon).rsqrt()

    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(norm, module)
    return model.double()


def command(case: tuple[Path, Path], output: Path, *more: str, rate: str = "1e-3") -> list[str]:
    """A command line: two epochs in steps of four rows, a checkpoint after every other step."""
    model, data = case
    return [
        *("--model_name_or_path", str(model), "--data_path", str(data)),
        *("--output_dir", str(output), "--report_to", "none", "--disable_tqdm", "True"),
        *("--per_device_train_batch_size", "4", "--num_train_epochs", "2", "--logging_steps", "1"),
        *("--learning_rate", rate, "--save_strategy", "steps", "--save_steps", "2", *more),
    ]


def record(output: Path) -> dict[str, Any]:
    """What a run wrote about itself."""
    return json.loads((output / "training.json").read_text())


def figures(output: Path, key: str = "loss") -> list[float]:
    """One column of a run's log."""
    return [entry[key] for entry in record(output)["log_history"] if key in entry]
