"""Reading rows.jsonl: one episode per line, in the order in which they finished."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rise.episodes.episode import Episode, is_owed, is_refused

log = logging.getLogger(__name__)

BLOCK = 1 << 20
"""Bytes that are read at once where lines are counted."""
LARGEST_ID = 2**63 - 1


def rows(
    path: Path, *, to_append: bool = False
) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """(offset, line, row) of each line; the row is None for a torn last line.

    Args:
        path: a rows.jsonl.
        to_append: the caller goes on after the last line, so one that is not ended is torn even
            where nothing but its end is missing. A reader takes that for an episode, and says of a
            torn one that it is left out.

    Raises:
        ValueError: if a line before the last one is not an episode.
    """
    offset = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            is_ended = line.endswith(b"\n")
            value = _parse(line) if is_ended or not to_append else None
            row = value if isinstance(value, dict) and is_task_id(value.get("task_id")) else None
            if row is None and ((is_ended and value is not None) or file.read(1)):
                raise ValueError(
                    f"line {number} of {path} is damaged: delete that line, its episode is redone"
                )
            if row is None and line.strip() and not to_append:
                _warn_torn(path, number)
            yield offset, line, row
            offset += len(line)


def finished(path: Path, *, to_append: bool = False) -> dict[int, int]:
    """Where the finished episodes are: task id -> offset; of several the last one counts.

    Episodes whose error is final are among them. `to_append` is that of `rows`.

    Raises:
        ValueError: as `rows` does.
    """
    found = rows(path, to_append=to_append)
    return {row["task_id"]: at for at, _, row in found if row and not is_owed(row.get("error"))}


def refusals(path: Path) -> Counter[int]:
    """Task id -> in how many calls it was refused: a call asks for an episode once.

    Raises:
        ValueError: as `rows` does.
    """
    return Counter(
        row["task_id"] for _, _, row in rows(path) if row and is_refused(row.get("error"))
    )


def episodes_at(path: Path, offsets: Iterable[int]) -> Iterator[Episode]:
    """The episodes at these offsets, one in memory at a time.

    Raises:
        ValueError: if a row is no episode; the file and the line are named.
    """
    with open(path, "rb") as file:
        for offset in offsets:
            file.seek(offset)
            with naming(path, offset):
                episode = Episode.from_dict(json.loads(file.readline()))
            yield episode


def lines_at(path: Path, offsets: Iterable[int]) -> Iterator[bytes]:
    """The lines at these offsets, one in memory at a time."""
    with open(path, "rb") as file:
        for offset in offsets:
            file.seek(offset)
            yield file.readline()


@contextlib.contextmanager
def naming(path: Path, offset: int) -> Iterator[None]:
    """Let an error about the record at this offset name its file and its line.

    Raises:
        ValueError: in place of whatever a record of another shape has raised.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        cause = str(error) if type(error) is ValueError else f"{type(error).__name__} {error}"
        raise ValueError(
            f"{path}, line {line_of(path, offset)}: {cause}: this record is not as "
            "workflow_gen.py or workflow_eval.py writes it; take it out of the log"
        ) from error


def line_of(path: Path, offset: int) -> int:
    """The number of the line, counted from 1, in which a byte of a file is."""
    lines = 1
    with open(path, "rb") as file:
        while offset > 0 and (block := file.read(min(BLOCK, offset))):
            lines += block.count(b"\n")
            offset -= len(block)
    return lines


def is_task_id(value: object) -> bool:
    """Whether this may number a problem: a whole number of 64 bits, and no truth value."""
    return type(value) is int and abs(value) <= LARGEST_ID


def _parse(line: bytes) -> Any:
    """The value of a line; None where it is no JSON."""
    try:
        return json.loads(line)
    except ValueError:
        return None


@functools.cache
def _warn_torn(path: Path, number: int) -> None:
    """Say once of a last line that it is torn: a log is read several times."""
    log.warning("line %d of %s is torn: its episode is left out", number, path)
