"""What a run was made with: checksums of checkpoints, versions of packages, the git commit."""

import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from fastchat.model.adapters import ADAPTER_CONFIG, is_adapter, named_base

CONFIGURATIONS = ("config.json", ADAPTER_CONFIG)
"""A directory with one of them holds a model, or a LoRA adapter that names its base model."""
SUFFIXES = (".safetensors", ".bin", ".jinja")
NAMES = (*CONFIGURATIONS, "tokenizer.json", "tokenizer_config.json")
SAMPLED_BYTES = 1 << 16
"""Bytes read at the beginning, the middle and the end of each file."""


def file_sha256(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(path: str | Path, *, with_base: bool = False) -> str | None:
    """A checksum of a file, or of a checkpoint's or an adapter's files; None where there are none.

    It tells a retrained checkpoint under the same path from the one that a run began with. Names,
    sizes and samples of the files are read, not all of them: a large model takes minutes. Given
    `with_base`, an adapter stands for its base model too.
    """
    path = Path(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if path.is_dir():
        files = [file for file in files if file.suffix in SUFFIXES or file.name in NAMES]
    if not (files := [file for file in files if file.is_file()]):
        return None
    digest = hashlib.sha256()
    for each in files:
        size = each.stat().st_size
        digest.update(f"{each.name}:{size}:".encode())
        with each.open("rb") as file:
            for start in sorted({0, size // 2, max(0, size - SAMPLED_BYTES)}):
                file.seek(start)
                digest.update(file.read(SAMPLED_BYTES))
    if with_base and is_adapter(path):
        base = named_base(path)
        digest.update(f"base:{fingerprint(base, with_base=True) or base}".encode())
    return digest.hexdigest()[:16]


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Versions of Python and of these packages; None where one is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_commit() -> str | None:
    """The commit of the tree that this file lies in ("-dirty" if changed); None outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
