"""Logs of any size: where their episodes are, and one of them in memory at a time.

A log is a rows.jsonl or a published `<T>_turns.json`, which is one JSON object and may be larger
than the memory: it is read piece by piece.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from rise.episodes.episode import Episode
from rise.episodes.rows import is_task_id, line_of, naming, rows

BLOCK = 1 << 20
"""Bytes of a published log that are read at once."""
LONGEST_MARK = 16
"""Where a value is cut by the end of a block, JSON complains at most this far before the end; about
a cut string it complains at the string's beginning."""
BOM = "\ufeff".encode().decode("latin-1")
"""What editors on Windows begin a file with, as the scanner sees it."""
DECODER = json.JSONDecoder()
ROLES = ("system", "user", "assistant")
FLOAT_MAX = sys.float_info.max


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
        with naming(self.path, offset):
            episode = Episode.from_dict(json.loads(record))
            _check_texts(episode)
            _check_samples(episode)
            return episode


def lacks_dialogue(path: Path) -> bool:
    """Whether a finished episode of a log has no dialogue: its prompt is then made from a style.

    Raises:
        ValueError: if the log is damaged.
    """
    for offset, _, record in _records(path):
        with naming(path, offset):
            if not record.get("error") and not Episode.from_dict(record).dialogue:
                return True
    return False


def _check_texts(episode: Episode) -> None:
    """Raise ValueError unless the question and all messages are texts, of roles that there are."""
    name = f"episode {episode.task_id}"
    if not isinstance(episode.query, str):
        raise ValueError(f"{name}: its query is {episode.query!r}, expected a text")
    for message in episode.dialogue:
        if message["role"] not in ROLES:
            raise ValueError(
                f"{name}: its dialogue has a message of role {message['role']!r}, expected "
                f"{', '.join(ROLES)}"
            )
        if not isinstance(message["content"], str):
            raise ValueError(
                f"{name}: its dialogue has a message with content {message['content']!r}, expected "
                "a text"
            )


def _check_samples(episode: Episode) -> None:
    """Raise ValueError unless every turn has actions, each with its feedback and its reward."""
    for number, turn in enumerate(episode.turns, start=1):
        texts, rewards = [*turn.actions, *turn.observations], turn.rewards
        name = f"episode {episode.task_id}, turn {number}"
        in_step = len(turn.actions) == len(turn.observations) == len(rewards) > 0
        of_type = all(isinstance(text, str) for text in texts)
        if not (in_step and of_type and all(isinstance(r, (int, float)) for r in rewards)):
            raise ValueError(
                f"{name}: expected as many actions (texts) as "
                f"observations (texts) and rewards (numbers), got {len(turn.actions)}, "
                f"{len(turn.observations)} and {len(rewards)}"
            )
        # Compared and not asked by isfinite, for which a whole number can be too large.
        if not all(-FLOAT_MAX <= reward <= FLOAT_MAX for reward in rewards):
            raise ValueError(f"{name}: its rewards are {rewards}, expected finite numbers")


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
        self._more()
        self._at = len(BOM) if self._text.startswith(BOM) else 0
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
            if not isinstance(record, dict) or not is_task_id(record.get("task_id")):
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
            f"{self._path} is not valid JSON (line {line_of(self._path, offset)}, byte {offset}: "
            f"{cause}): give the run's rows.jsonl, which loses nothing"
        )
