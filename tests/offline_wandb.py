"""Reads back what a run of wandb stored offline, to test what was really tracked."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32 * 1024
FILE_HEADER = 7
CHUNK_HEADER = struct.Struct("<IHB")  # checksum, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_offline_run(log_dir: str | Path) -> dict[str, Any]:
    """The only offline run below `log_dir`: its history, summary, config, project and name."""
    from wandb.proto import wandb_internal_pb2 as protocol

    (path,) = Path(log_dir).glob("wandb/offline-run-*/*.wandb")
    found: dict[str, Any] = {"history": [], "summary": {}, "config": {}}
    for data in _records(path.read_bytes()):
        record = protocol.Record()
        record.ParseFromString(data)
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
