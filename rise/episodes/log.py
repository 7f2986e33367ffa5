"""Logs of any size: where their episodes are, and one of them in memory at a time.

A log is a rows.jsonl or a published `<T>_turns.json`, one JSON object. What we write has an episode
per line inside the brackets and is read line by line; a log of another form is loaded whole.
"""

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rise.episodes.episode import Episode
from rise.episodes.rows import check_fetched, is_task_id, naming, rows

ROLES = ("system", "user", "assistant")


class EpisodeLog:
    """The finished episodes of one log by task id; of several of one problem the last one counts.

    Of a log in lines 16 bytes each are in memory. Rows with an error are left out.
    """

    def __init__(self, path: Path):
        self.path = path
        self._whole: list[dict[str, Any]] = []
        """The records of a log that is not in lines; an offset is a place in them then."""
        task_ids, offsets, lengths = array("q"), array("Q"), array("Q")
        for offset, length, record in _records(path):
            if not record.get("error"):
                task_ids.append(record["task_id"])
                offsets.append(len(self._whole) if offset is None else offset)
                lengths.append(length)
                if offset is None:
                    self._whole.append(record)
        ids = np.frombuffer(task_ids, np.int64)
        order = np.argsort(ids, kind="stable")
        is_last = np.append(np.diff(ids[order]) != 0, True)[: len(order)]
        kept = order[is_last]
        self._offsets = np.frombuffer(offsets, np.uint64)[kept]
        self._lengths = np.frombuffer(lengths, np.uint64)[kept]

    def __len__(self) -> int:
        return len(self._offsets)

    def episodes(self) -> Iterator[Episode]:
        with open(self.path, "rb") as file:
            for offset, length in zip(self._offsets, self._lengths, strict=True):
                with naming(self.path, None if self._whole else int(offset)):
                    if self._whole:
                        record = self._whole[int(offset)]
                    else:
                        file.seek(int(offset))
                        record = json.loads(file.read(int(length)))
                    episode = Episode.from_dict(record)
                    _check_texts(episode)
                    _check_samples(episode)
                yield episode


def lacks_dialogue(path: Path) -> bool:
    """Whether a finished episode of a log has no dialogue: its prompt is then made from a style."""
    for offset, _, record in _records(path):
        with naming(path, offset):
            if not record.get("error") and not Episode.from_dict(record).dialogue:
                return True
    return False


def _check_texts(episode: Episode) -> None:
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
    for number, turn in enumerate(episode.turns, start=1):
        texts, rewards = [*turn.actions, *turn.observations], turn.rewards
        in_step = len(turn.actions) == len(turn.observations) == len(rewards) > 0
        of_type = all(isinstance(text, str) for text in texts)
        if not (in_step and of_type and all(map(_is_finite, rewards))):
            raise ValueError(
                f"episode {episode.task_id}, turn {number}: expected as many actions (texts) as "
                f"observations (texts) and rewards (finite numbers), got {len(turn.actions)}, "
                f"{len(turn.observations)} and {len(rewards)}: {rewards}"
            )


def _is_finite(reward: object) -> bool:
    return isinstance(reward, (int, float)) and reward - reward == 0


def _records(path: Path) -> Iterator[tuple[int | None, int, dict[str, Any]]]:
    """(offset, length in bytes, record) of every episode; no offset if the log is loaded whole."""
    if path.suffix == ".jsonl":
        for offset, line, row in rows(path):
            if row is not None:
                yield offset, len(line), row
    elif _is_in_lines(path):
        offset = 0
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.startswith(b'"'):
                    key, _, value = line.rstrip(b",\r\n ").partition(b": ")
                    try:
                        record = json.loads(value)
                    except (ValueError, RecursionError) as error:
                        raise _damaged(path, f"line {number}: {error}") from error
                    yield offset + len(key) + 2, len(value), _checked(path, key.decode(), record)
                offset += len(line)
    else:
        try:
            log = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise _damaged(path, str(error)) from error
        if not isinstance(log, dict):
            raise ValueError(
                f"{path} is not an object of episodes keyed by index: give a run directory, a "
                "rows.jsonl or a <T>_turns.json of workflow_gen.py"
            )
        for key, record in log.items():
            yield None, 0, _checked(path, json.dumps(key), record)


def _is_in_lines(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.readline().rstrip() != b"{":
            return False
        for line in file:
            line = line.rstrip(b",\r\n ")
            if line == b"}":
                return not file.read(1)
            if not (line.startswith(b'"') and line.endswith(b"}") and b": {" in line):
                return False
    return False


def _checked(path: Path, key: str, record: Any) -> dict[str, Any]:
    if not isinstance(record, dict) or not is_task_id(record.get("task_id")):
        raise ValueError(f"{path}, key {key}: this is no episode with a task_id")
    return record


def _damaged(path: Path, cause: str) -> ValueError:
    if path.stat().st_size == 0:
        return ValueError(f"{path} is empty (0 bytes): give the run's rows.jsonl, or run it again")
    check_fetched(path)
    return ValueError(
        f"{path} is not valid JSON ({cause}): give the run's rows.jsonl, which loses nothing"
    )
