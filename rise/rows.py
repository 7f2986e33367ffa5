"""Reading rows.jsonl: one episode per line, in the order in which they finished."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rise.episode import Episode, is_owed, is_refused


def rows(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """(offset, line, row) of each line; the row is None for a torn last line.

    Raises:
        ValueError: if a line before the last one is not an episode.
    """
    offset = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            row = _parse(line)
            if row is None and file.read(1):
                raise ValueError(
                    f"line {number} of {path} is damaged: delete that line, its episode is redone"
                )
            yield offset, line, row
            offset += len(line)


def finished(path: Path) -> dict[int, int]:
    """Where the finished episodes are: task id -> offset; of several the last one counts.

    Episodes whose error is final are among them.

    Raises:
        ValueError: as `rows` does.
    """
    return {
        row["task_id"]: at for at, _, row in rows(path) if row and not is_owed(row.get("error"))
    }


def refusals(path: Path) -> Counter[int]:
    """Task id -> in how many calls it was refused: a call asks for an episode once.

    Raises:
        ValueError: as `rows` does.
    """
    return Counter(
        row["task_id"] for _, _, row in rows(path) if row and is_refused(row.get("error"))
    )


def episodes_at(path: Path, offsets: Iterable[int]) -> Iterator[Episode]:
    """The episodes at these offsets, one in memory at a time."""
    return (Episode.from_dict(json.loads(line)) for line in lines_at(path, offsets))


def lines_at(path: Path, offsets: Iterable[int]) -> Iterator[bytes]:
    """The lines at these offsets, one in memory at a time."""
    with open(path, "rb") as file:
        for offset in offsets:
            file.seek(offset)
            yield file.readline()


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("task_id"), int) else None
