"""Reading rows.jsonl: one episode per line, in the order in which they finished."""

import contextlib
import functools
import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fastchat.utils import no_json
from rise.episodes.episode import Episode, is_owed

log = logging.getLogger(__name__)

LARGEST_ID = 2**63 - 1


def rows(
    path: Path, *, to_append: bool = False
) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """(offset, line, row) of each line; the row is None for a torn last line.

    `to_append`: the caller goes on after the last line, so one that is not ended is torn even where
    nothing but its end is missing. A reader takes that for an episode, and says of a torn one that
    it is left out.
    """
    offset = 0
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for number, line in enumerate(file, start=1):
            is_ended = line.endswith(b"\n")
            value = _parse(line) if is_ended or not to_append else None
            row = value if isinstance(value, dict) and is_task_id(value.get("task_id")) else None
            if row is None:
                check_fetched(path)
                is_last = offset + len(line) >= size
                if number == 1 and isinstance(value, dict):
                    raise ValueError(
                        f"{path} is no log of workflow_gen.py, its first line has no task_id: give "
                        "the --log_dir of a run"
                    )
                if not is_last or (is_ended and value is not None):
                    raise ValueError(
                        f"line {number} of {path} is damaged: delete that line, its episode is "
                        "redone"
                    )
                if line.strip() and not to_append:
                    _warn_torn(path, number)
            yield offset, line, row
            offset += len(line)


def check_fetched(path: Path) -> None:
    """Raise ValueError for a file that was not fetched, or not unpacked."""
    if other := no_json(path):
        raise ValueError(f"{path} is {other}")


def finished(path: Path) -> dict[int, int]:
    """Task id -> offset of the finished episodes, final errors too; the last of several counts."""
    found = rows(path)
    return {row["task_id"]: at for at, _, row in found if row and not is_owed(row.get("error"))}


def finished_episodes(path: Path) -> list[Episode]:
    """The episodes that `finished` finds, by task id, in one pass and all in memory."""
    episodes = {}
    for offset, _, row in rows(path):
        if row and not is_owed(row.get("error")):
            with naming(path, offset):
                episodes[row["task_id"]] = Episode.from_dict(row)
    return [episodes[task_id] for task_id in sorted(episodes)]


def episodes_at(path: Path, offsets: Iterable[int]) -> Iterator[Episode]:
    offsets = list(offsets)
    for offset, line in zip(offsets, lines_at(path, offsets), strict=True):
        with naming(path, offset):
            episode = Episode.from_dict(json.loads(line))
        yield episode


def lines_at(path: Path, offsets: Iterable[int]) -> Iterator[bytes]:
    with open(path, "rb") as file:
        for offset in offsets:
            file.seek(offset)
            yield file.readline()


@contextlib.contextmanager
def naming(path: Path, offset: int | None) -> Iterator[None]:
    """Let an error about the record at this offset name its file and, where known, its line."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        cause = str(error) if type(error) is ValueError else f"{type(error).__name__} {error}"
        line = "" if offset is None else f", line {line_of(path, offset)}"
        raise ValueError(
            f"{path}{line}: {cause}: this record is not as "
            "workflow_gen.py or workflow_eval.py writes it; take it out of the log"
        ) from error


def line_of(path: Path, offset: int) -> int:
    with open(path, "rb") as file:
        ends = itertools.accumulate(map(len, file))
        return next(number for number, end in enumerate(ends, start=1) if end > offset)


def is_task_id(value: object) -> bool:
    return type(value) is int and abs(value) <= LARGEST_ID


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


@functools.cache
def _warn_torn(path: Path, number: int) -> None:
    """Say once of a last line that it is torn: a log is read several times."""
    log.warning("line %d of %s is torn: its episode is left out", number, path)
