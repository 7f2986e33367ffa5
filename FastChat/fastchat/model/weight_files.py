"""Whether the files of a checkpoint are there and whole: looked at before anything is loaded."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from fastchat.model import hub
from fastchat.model.adapters import is_adapter
from fastchat.model.model_adapter import base_source, resolve
from fastchat.utils import LFS_POINTER

TEXTS = (
    "config.json",
    "adapter_config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json")
"""The first that is there is read."""
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
"""The first that is there is read, as in `WEIGHTS`."""
FETCH = "fetch it again (`git lfs pull`, or `hf download`)"


def check_files(path: str | Path, base: str | None = None, cache_dir: str | None = None) -> None:
    """Refuse a checkpoint or an adapter of which files are missing, cut off, or not fetched.

    One of the hub is refused where neither its cache nor the hub itself can be asked for it.
    """
    folders = [resolve(path), base_source(path, base)] if is_adapter(resolve(path)) else []
    for folder in map(Path, folders or [resolve(path)]):
        if not folder.is_dir():
            if problem := hub.problem_with(str(folder), cache_dir):
                raise ValueError(problem)
            continue
        for file in _read_files(folder):
            problem = _problem(file)
            if problem:
                raise ValueError(f"{file} {problem}")


def _read_files(folder: Path) -> Iterator[Path]:
    """The files of a checkpoint that are read when it is loaded; shards may be missing."""
    yield from (folder / name for name in TEXTS if (folder / name).is_file())
    yield from _first(folder, TOKENIZERS)
    names = ADAPTERS if is_adapter(folder) else WEIGHTS
    weights = _first(folder, names)
    if not weights:
        raise ValueError(f"{folder} holds no {names[0]}, nor any other weights: {FETCH}")
    for file in weights:
        yield file
        if file.suffix == ".json":
            try:
                shards = sorted(set(json.loads(file.read_bytes())["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{file} is damaged ({error}): {FETCH}") from error
            yield from (folder / name for name in shards)


def _first(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()][:1]


def _problem(file: Path) -> str | None:
    if not file.is_file():
        return f"is missing, though the index beside it names it: {FETCH}"
    size = file.stat().st_size
    with open(file, "rb") as content:
        head = content.read(len(LFS_POINTER))
    if head == LFS_POINTER.encode():
        return f"is a pointer of Git LFS and not the file: run `git lfs pull` in {file.parent}"
    if file.suffix == ".safetensors":
        try:  # opened, it has to be as long as its header says
            with safe_open(file, framework="np"):
                return None
        except SafetensorError as error:
            return f"is cut off, or no safetensors file ({size:,} bytes; {error}): {FETCH}"
    if file.suffix == ".json" and size:  # one of JSON ends as it began
        with open(file, "rb") as content:
            content.seek(max(0, size - 99))
            if not content.read().rstrip().endswith(b"}"):
                return f"is cut off, or no JSON ({size:,} bytes): {FETCH}"
    # A file of torch is a zip archive, whose directory stands at its end; old ones are pickles.
    if file.suffix == ".bin" and not (head[:1] == b"\x80" or zipfile.is_zipfile(file)):
        return f"is cut off, or no file of PyTorch ({size:,} bytes): {FETCH}"
    return None if size else f"is empty: {FETCH}"
