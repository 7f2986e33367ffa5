"""Which weights a directory holds: training begins from files that may be replaced in place."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastchat.model.model_adapter import resolve

SUFFIXES = (".safetensors", ".bin", ".jinja")
NAMES = ("config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json")
SAMPLED_BYTES = 1 << 16
"""Bytes read at the beginning, the middle and the end of each file."""


def fingerprint(model: str) -> str | None:
    """A checksum of a checkpoint's or an adapter's files; None for an id of the hub.

    Names, sizes and samples of the files are read, not all of them: a large model takes minutes.
    """
    folder = Path(resolve(model))
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and (path.suffix in SUFFIXES or path.name in NAMES):
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}:".encode())
            with path.open("rb") as file:
                for start in sorted({0, size // 2, max(0, size - SAMPLED_BYTES)}):
                    file.seek(start)
                    digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()[:16]
