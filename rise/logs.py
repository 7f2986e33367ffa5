"""Logs of any size: where their episodes are, and one of them in memory at a time.

A log is a rows.jsonl or a published `<T>_turns.json`, which is one JSON object and may be larger
than the memory: it is read piece by piece.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from rise.episode import Episode
from rise.rows import rows

BLOCK = 1 << 20
"""Bytes of a published log that are read at once."""
LONGEST_MARK = 16
"""Where a value is cut by the end of a block, JSON complains at most this far before the end; about
a cut string it complains at the string's beginning."""
DECODER = json.JSONDecoder()


class EpisodeLog:
    """The finished episodes of one log by task id; 16 bytes each are kept in memory.

    Rows with an error are left out; of several rows of one problem the last finished one counts.

    Raises:
        ValueError: if the log is damaged; its line or its place is named.
    """

    def __init__(self, path: Path):
        self.path = path
        task_ids, offsets, lengths = array("q"), array("Q"), array("Q")
        for offset, length, record in _records(path):
            if not record.get("error"):
                task_ids.append(record["task_id"])
                offsets.append(offset)
                lengths.append(length)
        ids = np.frombuffer(task_ids, np.int64)
        order = np.argsort(ids, kind="stable")
        is_last = np.append(np.diff(ids[order]) != 0, True)[: len(order)]
        kept = order[is_last]
        self._offsets = np.frombuffer(offsets, np.uint64)[kept]
        self._lengths = np.frombuffer(lengths, np.uint64)[kept]

    def __len__(self) -> int:
        return len(self._offsets)

    def episodes(self, limit: int | None = None) -> Iterator[Episode]:
        """The first `limit` episodes, or all.

        Raises:
            ValueError: if a record is no episode; the file and the line are named.
        """
        with open(self.path, "rb") as file:
            for offset, length in zip(self._offsets[:limit], self._lengths[:limit], strict=True):
                file.seek(int(offset))
                yield self._episode(file.read(int(length)), int(offset))

    def _episode(self, record: bytes, offset: int) -> Episode:
        try:
            episode = Episode.from_dict(json.loads(record))
            _check_samples(episode)
            return episode
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            cause = str(error) if type(error) is ValueError else f"{type(error).__name__} {error}"
            raise ValueError(
                f"{self.path}, line {_line_of(self.path, offset)}: {cause}: this record is not as "
                "workflow_gen.py writes it; take it out of the log"
            ) from error


def _check_samples(episode: Episode) -> None:
    """Raise ValueError unless every turn has actions, each with its feedback and its reward."""
    for number, turn in enumerate(episode.turns, start=1):
        texts, rewards = [*turn.actions, *turn.observations], turn.rewards
        in_step = len(turn.actions) == len(turn.observations) == len(rewards) > 0
        of_type = all(isinstance(text, str) for text in texts)
        if not (in_step and of_type and all(isinstance(r, (int, float)) for r in rewards)):
            raise ValueError(
                f"episode {episode.task_id}, turn {number}: expected as many actions (texts) as "
                f"observations (texts) and rewards (numbers), got {len(turn.actions)}, "
                f"{len(turn.observations)} and {len(rewards)}"
            )


def _records(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(offset, length in bytes, record) of every episode of a log, in the order of the file."""
    if path.suffix == ".jsonl":
        for offset, line, row in rows(path):
            if row is not None:
                yield offset, len(line), row
        return
    with open(path, "rb") as file:
        yield from _Scanner(file, path).members()


class _Scanner:
    """The members of a JSON object in a file, one in memory at a time.

    The bytes are taken for Latin-1, in which each is one character, so that a position is an
    offset; everything that JSON itself is made of is ASCII.
    """

    def __init__(self, file: IO[bytes], path: Path):
        self._file = file
        self._path = path
        self._text = ""
        self._at = 0
        self._passed = 0

    def members(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """(offset, length, record) of each value of the object.

        Raises:
            ValueError: if the file is not an object of episodes.
        """
        first = self._next_mark()
        if first not in ("{", ""):
            raise ValueError(
                f"{self._path} is not an object of episodes keyed by index: give a run directory, "
                "a rows.jsonl or a <T>_turns.json of workflow_gen.py"
            )
        mark = first if first == "" or self._peek() != "}" else self._next_mark()
        while mark in ("{", ","):
            self._peek()
            key, *_ = self._value()
            if not isinstance(key, str) or self._next_mark() != ":":
                raise self._damaged("a key and a colon are expected")
            self._peek()
            record, offset, length = self._value()
            if not isinstance(record, dict) or not isinstance(record.get("task_id"), int):
                raise ValueError(f'{self._path}, key "{key}": this is no episode with a task_id')
            yield offset, length, record
            mark = self._next_mark()
        if mark != "}" or self._peek():
            raise self._damaged("it does not end as an object")

    def _more(self) -> bool:
        """Read on; False at the end of the file."""
        rest = self._text[self._at :]
        block = self._file.read(max(BLOCK, len(rest))).decode("latin-1")
        self._passed += self._at
        self._text, self._at = rest + block, 0
        return bool(block)

    def _peek(self) -> str:
        """The next character that is not a blank, "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _next_mark(self) -> str:
        mark = self._peek()
        self._at += len(mark)
        return mark

    def _value(self) -> tuple[Any, int, int]:
        """The next value, its offset and its length."""
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
                break
            except json.JSONDecodeError as error:
                may_be_cut = error.msg.startswith("Unterminated string")
                may_be_cut |= error.pos >= len(self._text) - LONGEST_MARK
                if not (may_be_cut and self._more()):
                    raise self._damaged(error.msg, error.pos) from error
        text, start = self._text[self._at : end], self._at
        self._at = end
        if not text.isascii():
            value = json.loads(text.encode("latin-1"))
        return value, self._passed + start, end - start

    def _damaged(self, cause: str, position: int | None = None) -> ValueError:
        offset = self._passed + (self._at if position is None else position)
        return ValueError(
            f"{self._path} is not valid JSON (line {_line_of(self._path, offset)}, byte {offset}: "
            f"{cause}): give the run's rows.jsonl, which loses nothing"
        )


def _line_of(path: Path, offset: int) -> int:
    """The number of the line, counted from 1, in which a byte of a file is."""
    lines = 1
    with open(path, "rb") as file:
        while offset > 0 and (block := file.read(min(BLOCK, offset))):
            lines += block.count(b"\n")
            offset -= len(block)
    return lines
