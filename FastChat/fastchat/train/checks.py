"""What is refused before anything is loaded: impossible and contradictory arguments."""

import copy
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers.integrations import INTEGRATION_TO_CALLBACK

from fastchat.model.adapters import is_adapter
from fastchat.model.model_adapter import resolve
from fastchat.model.weight_files import check_files
from fastchat.train.arguments import Arguments, TrainingArguments
from fastchat.train.first_look import DEEPSPEED, data_problems, model_problems
from fastchat.train.lora import LoraArguments, lora_problems

CHOICES = {
    "train_sampling_strategy": ("random", "sequential", "group_by_length"),
    "batching": ("tree", "padded"),
}

UNSUPPORTED = {
    "label_smoothing_factor": "the reward-weighted loss has no label smoothing",
    "resume_from_checkpoint": "the same command resumes from the last checkpoint in --output_dir",
    "save_only_model": "a checkpoint without its optimizer would start the schedule anew",
    "ignore_data_skip": "a resumed run would see its first rows again",
    "auto_find_batch_size": "set --per_device_train_batch_size",
    "fsdp": DEEPSPEED,
    "dataloader_drop_last": "a short last step is weighted correctly, so nothing has to be dropped",
}
"""Arguments of transformers' Trainer that would be ignored, and why or what to do instead."""


def check(arguments: Arguments) -> None:
    """Refuse contradictory or impossible arguments, all of them in one message.

    With --check model and data may be missing: an earlier stage may make them.
    """
    args, model = arguments.training, arguments.model.model_name_or_path
    data = arguments.data
    problems = [] if args.check else data_problems(data.data_path, data.eval_data_path)
    if not (args.check and is_absent(model)):
        problems += _model_problems(model, args)
        problems += _adapter_problems(arguments.lora, model, args.cache_dir)
    problems += contradictions(arguments)
    if problems:
        raise ValueError("\n".join(problems))


def contradictions(arguments: Arguments) -> list[str]:
    """What is wrong whether or not model and data exist yet, one line per problem."""
    model, lora, data, training = arguments
    problems = lora_problems(lora, model.model_name_or_path, training.zero_stage)
    problems += _output_problems(training.directory)
    problems += [
        f"--{name} {getattr(training, name)} is not supported; choose one of {', '.join(known)}"
        for name, known in CHOICES.items()
        if getattr(training, name) not in known
    ]
    if training.group_trajectories and training.train_sampling_strategy != "random":
        problems.append(
            f"--group_trajectories and --train_sampling_strategy {training.train_sampling_strategy}"
            " contradict each other: give one of them"
        )
    problems += _number_problems(training)
    if training.deepspeed:
        found = _mismatches(training.deepspeed, training.hf_deepspeed_config)
        # Only the training itself knows how many processes share a batch: see `check_schedule`.
        problems += [problem for problem in found if ": train_batch_size=" not in problem]
    problems += [
        f"--report_to {name} is unknown; choose wandb, tensorboard, all, none, or one of "
        f"{', '.join(sorted(INTEGRATION_TO_CALLBACK.keys() - {'wandb', 'tensorboard'}))}"
        for name in training.trackers
        if name not in INTEGRATION_TO_CALLBACK
    ]
    problems += [
        f"--{name} {getattr(training, name)} is not supported: {reason}"
        for name, reason in UNSUPPORTED.items()
        if getattr(training, name)
    ]
    if not 0 <= data.max_dropped_fraction <= 1:
        problems.append(
            f"--max_dropped_fraction is {data.max_dropped_fraction}: it must be from 0 to 1"
        )
    return problems


def is_absent(model: str) -> bool:
    """Whether a name is a path at which no checkpoint is, or the directory of a training begun."""
    try:
        resolve(model)
    except ValueError:
        return not any(Path(model).glob("[!.]*")) or (Path(model) / "training.json").is_file()
    return False


def check_schedule(training: TrainingArguments, config: Any, examples: int) -> None:
    """Refuse a DeepSpeed file that contradicts the number or size of steps; loads no weights."""
    if not training.deepspeed:
        return
    steps = math.ceil(training.num_train_epochs * math.ceil(examples / training.step_examples))
    steps = training.max_steps if training.max_steps > 0 else steps
    # transformers compares them once the model is there; this is the same on a copy.
    trial = copy.deepcopy(training.hf_deepspeed_config)
    try:
        trial.trainer_config_finalize(training, SimpleNamespace(config=config), steps)
    except ValueError as error:
        problems = _mismatches(training.deepspeed, trial) or [f"--deepspeed: {error}"]
        raise ValueError("\n".join(problems)) from error


def _mismatches(file: Any, config: Any) -> list[str]:
    """What the DeepSpeed file and the arguments say differently, as transformers found it."""
    found = [line.removeprefix("- ds ").partition(" vs hf ") for line in config.mismatches]
    return [
        f'--deepspeed {file}: {entry} contradicts {argument}: write "auto" there'
        for entry, _, argument in found
    ]


def _output_problems(output_dir: Path) -> list[str]:
    """Why nothing can be written to `output_dir`, which may not exist yet."""
    existing = next(path for path in (output_dir, *output_dir.absolute().parents) if path.exists())
    if not existing.is_dir():
        return [f"--output_dir {output_dir}: {existing} is a file; name a directory"]
    if not os.access(existing, os.W_OK | os.X_OK):
        return [f"--output_dir {output_dir}: {existing} cannot be written to; name another one"]
    return []


def _number_problems(training: TrainingArguments) -> list[str]:
    """Numbers that transformers and torch find impossible only once the model is loaded."""
    positive = ["per_device_train_batch_size", "gradient_accumulation_steps"]
    positive += ["tree_tokens"] if training.tree_tokens is not None else []
    finite = ("learning_rate", "weight_decay", "max_grad_norm")
    wrong = {name: "at least 1" for name in positive if getattr(training, name) < 1}
    wrong |= {n: "a number, 0 or more" for n in finite if not 0 <= getattr(training, n) < math.inf}
    if training.max_steps <= 0 and not 0 < training.num_train_epochs < math.inf:
        wrong["num_train_epochs"] = "above 0"
    return [f"--{n} is {getattr(training, n)}: it must be {what}" for n, what in wrong.items()]


def _model_problems(model: str, training: TrainingArguments) -> list[str]:
    if problems := model_problems(model, training.cache_dir):
        return problems
    source = Path(resolve(model))
    if source.is_dir() and source.resolve() == training.directory.resolve():
        return [
            f"--output_dir {training.directory} is the model's own directory; the result would "
            "overwrite its source, so name another one"
        ]
    return []


def _adapter_problems(lora: LoraArguments, base: str, cache_dir: str | None) -> list[str]:
    try:
        if lora.lora_weight_path and is_adapter(lora.lora_weight_path):
            check_files(lora.lora_weight_path, base, cache_dir)
    except ValueError as error:
        return [f"--lora_weight_path: {error}"]
    return []
