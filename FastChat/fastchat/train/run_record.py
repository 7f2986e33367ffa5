"""The output directory of a run: its lock, and `training.json`, which says what the run is.

Two runs in one directory would delete each other's checkpoints. The record holds the settings that
decide the result (a run with other settings is refused in the same directory), the data with its
checksum and what became of its rows, versions, and at the end the log of all steps.
"""

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from fastchat.model.files import file_sha256, fingerprint, git_commit, versions
from fastchat.model.model_adapter import resolve
from fastchat.tracking import TRACKING
from fastchat.train.arguments import Arguments, TrainingArguments
from fastchat.train.checkpoints import checkpoints, clear, missing_files
from fastchat.train.processes import is_first_process, logger, say
from fastchat.utils import json_or_none

LOCK = ".training.lock"
"""Hidden, since it stays behind after kill -9; the lock itself ends with its process."""
LOCK_WAIT = 10.0
"""Seconds to wait for what a killed run has left behind: processes that load its data."""
PACKAGES = ("fschat", "torch", "transformers", "accelerate", "deepspeed", "flash_attn")
RECORD = "training.json"

DECISIVE = """
model_max_length num_train_epochs max_steps learning_rate lr_scheduler_type warmup_steps
weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm optim optim_args optim_target_modules
lr_scheduler_kwargs neftune_noise_alpha train_sampling_strategy group_trajectories seed data_seed
bf16 fp16
""".split()
"""Arguments of the trainer that change the result; logging and saving may differ on resume."""

BEST = """
metric_for_best_model greater_is_better eval_strategy eval_steps save_strategy save_steps
""".split()
"""Those that decide which checkpoint `--load_best_model_at_end` takes."""

DEEPSPEED = ("optimizer", "scheduler", "gradient_clipping", "bf16", "fp16", "data_types")
"""Entries of the DeepSpeed file that change the result, beside ZeRO's stage."""

ADDED_LATER = {
    *("loss_on", "model_fingerprint", "adapter_fingerprint", "chat_template_sha256"),
    *("load_best_model_at_end", "eval_data_sha256", *BEST),
    *(f"deepspeed_{name}" for name in DEEPSPEED),
}
"""Settings that records from before they existed lack, and that are not compared with those."""


@contextlib.contextmanager
def output_lock(args: TrainingArguments) -> Iterator[None]:
    """Hold the output directory, on the first process; all processes fail if it cannot."""
    refusal: list[Exception | None] = [None]
    with contextlib.ExitStack() as held:
        if is_first_process():
            try:
                _lock(args.directory, held)
            except (ValueError, OSError) as error:
                refusal = [error]
        if args.world_size > 1:
            # The others look at the directory only now: the run that was waited for has changed it.
            torch.distributed.broadcast_object_list(refusal, src=0)
        if refusal[0] is not None:
            raise refusal[0]
        yield


def _lock(directory: Path, held: contextlib.ExitStack) -> None:
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    held.callback(_remove_empty, made)
    lock = FileLock(directory / LOCK, timeout=LOCK_WAIT, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"another process is training in {directory}: wait for it, or name another --output_dir"
        ) from error
    except OSError as error:
        # Some file systems of clusters know no locks; training there is no mistake.
        logger.warning("%s cannot be locked (%s): let no other run write there", directory, error)
    held.callback(lock.release)
    held.callback((directory / LOCK).unlink, missing_ok=True)


def _remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):  # not empty: something was written
        for folder in folders:
            folder.rmdir()


def evaluation(data_path: str, model: Path) -> str:
    """The command that evaluates the model, with environment and prompts as the data's report says.

    Without a report, or where that is of logs of several styles, those of GSM8K.
    """
    report = json_or_none(Path(f"{data_path}.report.json"))
    report = report if isinstance(report, dict) else {}
    env = report.get("settings", {}).get("env") or "gsm8k"
    problems = f"data/{env}/test.jsonl" if env in ("gsm8k", "math") else "TEST.jsonl"
    words = ["--model", str(model), "--data_path", problems, "--env", env]
    styles = [*{*report.get("prompt_styles", {}).values()}]
    # Of a published log it tells no style, but a sentence.
    if len(styles) == 1 and styles[0] != "default" and not styles[0].startswith("as logged"):
        words += ["--prompt_style", styles[0]]
    words += ["--max_turns", "5", "--num_of_samples", *["1"] * 5, "--context_window", "2"]
    return f"python workflow_eval.py {shlex.join([*words, '--log_dir', f'log/eval/{model.name}'])}"


def new_record(arguments: Arguments) -> dict[str, Any]:
    model_args, lora, data_args, args = arguments
    digest = file_sha256(data_args.data_path)
    settings = {name: _plain(getattr(args, name)) for name in DECISIVE}
    settings |= {
        "model_name_or_path": model_args.model_name_or_path,
        "model_fingerprint": fingerprint(resolve(model_args.model_name_or_path)),
        "chat_template": model_args.chat_template,
        "data_sha256": digest,
        "loss_on": data_args.loss_on,
        "examples_per_step": args.step_examples,
        "zero_stage": args.zero_stage,
        "load_best_model_at_end": args.load_best_model_at_end,
    }
    if args.load_best_model_at_end:
        settings |= {name: _plain(getattr(args, name)) for name in BEST}
        path = data_args.eval_data_path
        settings["eval_data_sha256"] = path and file_sha256(path)
    if args.deepspeed:
        content = args.deepspeed_content
        settings |= {f"deepspeed_{name}": content.get(name) for name in DEEPSPEED}
    if model_args.chat_template and Path(model_args.chat_template).is_file():
        settings["chat_template_sha256"] = file_sha256(model_args.chat_template)
    if lora.enabled:
        settings["lora"] = lora.settings()
        if lora.lora_weight_path:
            settings["adapter_fingerprint"] = fingerprint(resolve(lora.lora_weight_path))
    return {
        "status": "running",
        "command": sys.argv,
        "settings": settings,
        "data": {"path": data_args.data_path, "sha256": digest},
        "processes": args.world_size,
        "device": str(args.device.type),
        "versions": versions(PACKAGES),
        "git_commit": git_commit(),
    }


def is_finished(output_dir: Path, new: dict[str, Any]) -> bool:
    """Whether a whole finished run with this record's settings is there; says so, or what lacks."""
    record = json_or_none(output_dir / RECORD)
    saved = checkpoints(output_dir) or list(output_dir.glob("*.safetensors"))
    if record is None:
        if saved:
            raise ValueError(
                f"{output_dir} holds {saved[0].name} but no {RECORD}, so it is no run of this "
                f"program: name another --output_dir, or pass --overwrite_output_dir"
            )
        return False
    before, settings = record["settings"], new["settings"]
    differing = [
        _difference(key, record, new)
        for key in sorted(before.keys() | settings.keys())
        if before.get(key) != settings.get(key) and not (key in ADDED_LATER and key not in before)
    ]
    if differing and record["status"] != "finished" and not saved:
        say(f"{output_dir}: a run with other settings ended before it saved anything")
        return False
    if differing:
        raise ValueError(
            f"{output_dir} holds a run with other settings: {', '.join(differing)}: "
            f"name another --output_dir, or pass --overwrite_output_dir to delete that run"
        )
    if record["status"] != "finished":
        return False
    lost = missing_files(output_dir, record)
    if lost:
        say(f"{output_dir} was finished, but {lost}: it is made again")
        return False
    say(f"{output_dir} is finished; nothing to do (--overwrite_output_dir trains it anew)")
    return True


def _difference(key: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    """A setting that is another one, in words; of files it was the content that was compared."""
    was, is_now = (record["settings"].get(key) for record in (before, now))
    if key == "data_sha256":
        key, was, is_now = "data_path", before["data"]["path"], now["data"]["path"]
    if was == is_now or key.endswith(("_sha256", "_fingerprint")):
        return f"{key} (the content has changed)"
    return f"{key} (was {was}, is {is_now})"


def start_anew(args: TrainingArguments) -> None:
    if args.should_save:
        for name in (RECORD, TRACKING):
            (args.directory / name).unlink(missing_ok=True)
        clear(args.directory)
    args.distributed_state.wait_for_everyone()


def _plain(value: Any) -> Any:
    """Enumerations as their values, so that the setting survives JSON; nothing given is None."""
    return None if value == {} else getattr(value, "value", value)
