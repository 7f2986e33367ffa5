"""Checkpoints of a run: which are complete, and how many parameters were saved.

A directory `checkpoint-N` counts only with `complete.json`, which is written last and lists every
file with its size: what a killed process left behind is never resumed from.
"""

import contextlib
import logging
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fastchat.utils import first_line, json_or_none, write_json

logger = logging.getLogger("fastchat.train")

MARK = "complete.json"

MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
)
"""What a saved model or adapter consists of, beside its tokenizer."""

RESULTS = ("trainer_state.json", "train_results.json", "all_results.json")
"""What transformers' Trainer says of a run."""

TOKENIZER_FILES = ("tokenizer*", "*.jinja")

TORCH_WRITER = ("PytorchStreamWriter", "inline_container")
"""What the errors of torch.save name where writing failed."""


def mark_complete(directory: Path, step: int, processes: int) -> None:
    files = {
        str(path.relative_to(directory)): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MARK
    }
    write_json(directory / MARK, {"step": step, "processes": processes, "files": files})


def last_complete(output_dir: Path, processes: int) -> Path | None:
    """The complete checkpoint with the most steps; torn ones are skipped with a notice."""
    for directory in reversed(checkpoints(output_dir)):
        mark = json_or_none(directory / MARK)
        if mark is None or any(
            not (directory / name).is_file() or (directory / name).stat().st_size != size
            for name, size in mark["files"].items()
        ):
            logger.warning("%s is incomplete (the run was killed while saving): skipped", directory)
            continue
        if mark["processes"] != processes:
            raise ValueError(
                f"{directory} was written by {mark['processes']} processes and this run has "
                f"{processes}: resume with as many, or name another --output_dir, or start anew "
                "with --overwrite_output_dir"
            )
        return directory
    return None


def checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints of a directory, whole or torn, in the order of their steps."""
    found = [path for path in output_dir.glob("checkpoint-*") if path.is_dir()]
    steps = {path: path.name.split("-")[1] for path in found}
    return sorted((path for path in found if steps[path].isdigit()), key=lambda p: int(steps[p]))


def remove(output_dir: Path) -> None:
    for directory in checkpoints(output_dir):
        shutil.rmtree(directory)


def clear(output_dir: Path) -> None:
    remove(output_dir)
    # A full model and an adapter have other files: what is left of the one would be taken for
    # the other.
    for pattern in (*MODEL_FILES, *RESULTS):
        for path in output_dir.glob(pattern):
            path.unlink()


def rotate(output_dir: Path, limit: int | None, best: str | None) -> None:
    """Delete the oldest checkpoints until `limit` are left (None or 0: all), but never `best`.

    To be called once the newest is marked complete: before that, the one to delete may be the only
    one that a run can go on from.
    """
    found = checkpoints(output_dir)
    spared = {found[-1], *([Path(best)] if best else [])} if found else set()
    excess = len(found) - max(limit, len(spared)) if limit else 0
    for directory in [path for path in found if path not in spared][: max(0, excess)]:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def saving(directory: Path) -> Iterator[None]:
    """Say of a failure to write, whoever reports it, where it was and how to go on."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch.save has no type of its own for it, but names its writer.
        if isinstance(error, RuntimeError) and not any(name in str(error) for name in TORCH_WRITER):
            raise
        raise OSError(
            f"{directory} cannot be saved ({first_line(error)}): see to the disk; the "
            "same command goes on from the last complete checkpoint, if any"
        ) from error


def saved_files(directory: Path) -> list[str]:
    patterns = (*MODEL_FILES, *TOKENIZER_FILES)
    return sorted({path.name for pattern in patterns for path in directory.glob(pattern)})


def missing_files(directory: Path, record: dict[str, Any]) -> str | None:
    """What a finished run no longer has of what its record says it saved; None if it is whole."""
    # Records from before the names were kept have the number of parameters alone.
    lost = [name for name in record.get("files", ()) if not (directory / name).is_file()]
    if lost:
        return f"{', '.join(lost)} {'is' if len(lost) == 1 else 'are'} missing"
    try:
        saved = saved_parameters(directory)
    except SafetensorError as error:
        return f"its weights cannot be read ({error})"
    expected = record["parameters"]
    return f"holds {saved:,} of its {expected:,} parameters" if saved < expected else None


def saved_parameters(directory: Path) -> int:
    """Number of parameters in the safetensors files of a checkpoint, which are opened for it."""
    total = 0
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    return total


def model_parameters(model: Any) -> int:
    """Number of parameters of a model, shared ones once, whatever part of it is in memory."""
    return sum(map(_size, model.parameters()))


def trained_parameters(model: Any) -> int:
    """Number of those parameters that are trained: all, or those of an adapter."""
    return sum(_size(p) for p in model.parameters() if p.requires_grad)


def _size(parameter: Any) -> int:
    packed = getattr(parameter, "quant_state", None)  # two weights of 4 bits share a byte
    if packed is not None:
        return math.prod(packed.shape)
    return getattr(parameter, "ds_numel", None) or parameter.numel()
