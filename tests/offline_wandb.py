"""Reads back what a run of wandb stored offline, to test what was really tracked."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32 * 1024
FILE_HEADER = 7
CHUNK_HEADER = struct.Struct("<IHB")  # checksum, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_offline_run(log_dir: str | Path, seconds: float = 60.0) -> dict[str, Any]:
    """The only offline run below `log_dir`: its history, summary, config, project and name.

    The background process of wandb may still be writing when a run says that it has finished, so
    the end of the run is waited for.

    Raises:
        TimeoutError: if the run does not end within `seconds`.
    """
    from wandb.proto import wandb_internal_pb2 as protocol

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for path in Path(log_dir).glob("wandb/offline-run-*/*.wandb"):
            records = [protocol.Record.FromString(data) for data in _records(path.read_bytes())]
            if any(record.WhichOneof("record_type") == "exit" for record in records):
                return _run(records)
        time.sleep(0.05)
    raise TimeoutError(f"no run below {log_dir} has ended within {seconds} s")


def _run(records: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"history": [], "summary": {}, "config": {}}
    for record in records:
        kind = record.WhichOneof("record_type")
        if kind == "history":
            found["history"].append(_values(record.history.item))
        elif kind == "summary":
            found["summary"] |= _values(record.summary.update)
        elif kind == "config":
            found["config"] |= _values(record.config.update)
        elif kind == "run":
            found["config"] |= _values(record.run.config.update)
            found |= {"project": record.run.project, "name": record.run.display_name}
    return found


def _values(items: Any) -> dict[str, Any]:
    return {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}


def _records(content: bytes) -> Iterator[bytes]:
    """The records of a log of 32 KiB blocks, in which a record may be split into chunks."""
    position, parts = FILE_HEADER, []
    while position + CHUNK_HEADER.size <= len(content):
        rest = BLOCK - position % BLOCK
        _, length, kind = CHUNK_HEADER.unpack_from(content, position)
        if rest < CHUNK_HEADER.size or (length, kind) == (0, 0):
            position += rest
            continue
        position += CHUNK_HEADER.size
        parts.append(content[position : position + length])
        position += length
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = []
