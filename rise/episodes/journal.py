"""The journal of a run: episodes appended as they finish, a configuration that must not change.

A run directory holds `config.json`, `rows.jsonl` (one episode per line, in the order in which they
finished), `<max_turns>_turns.json` (the published log: an object keyed by the index as a string)
and `summary.json`. The record itself is in `rise.episodes.episode`; its names can be imported from
here.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Set
from pathlib import Path
from typing import IO, Any

from rise.episodes.episode import Episode, Message, Turn, is_owed, visible
from rise.episodes.log import EpisodeLog
from rise.episodes.rows import episodes_at, finished, lines_at, rows
from rise.program.files import read_json, read_object, replacing, write_json
from rise.program.stage import place

__all__ = [
    "Episode",
    "Message",
    "RunDir",
    "Turn",
    "load_episodes",
    "locate",
    "read_json",
    "recorded",
    "visible",
    "write_json",
]

log = logging.getLogger(__name__)

NOT_COMPARED = frozenset(
    {
        "api_base",
        "command",
        "concurrency",
        "controller_address",
        "data_path",
        "git_commit",
        "give_up_after",
        "log_dir",
        "logging_dir",
        "max_cost_usd",
        "prices",
        "report_to",
        "request_timeout",
        "verbose",
        "versions",
        "wandb_group",
        "wandb_name",
        "wandb_project",
        "workers_per_model",
    }
)
"""Keys of config.json that may differ when a run is resumed. The problems themselves are compared
by their checksum, so that a moved file does not count as another configuration."""


class RunDir:
    """A run directory that is open for appending; one process at a time.

    `done` holds the task ids that have a row without an error, or with one that is final; every
    other problem is owed.
    """

    def __init__(self, path: Path, log_dir: Path, max_turns: int, config: dict[str, Any]):
        self.path = path
        self.log_path = log_dir / f"{max_turns}_turns.json"
        self.config = config
        self._offsets: dict[int, int] = {}
        self._unanswered: set[int] = set()
        """Those that ended with a final error."""
        self._rows: IO[bytes] | None = None

    @classmethod
    def open(cls, log_dir: str | Path, config: dict[str, Any], max_turns: int) -> RunDir:
        """Start a run, or go on with the one that is there.

        The run lives in `log_dir` itself if no run is there or one with the same `max_turns`, else
        in `log_dir/<max_turns>_turns/`: the two published evaluations share one `--log_dir`.

        Raises:
            ValueError: if the directory holds a run of another configuration (the differing keys
                are named), if its rows are damaged before the last line, or if another process is
                writing to it.
        """
        log_dir, config = Path(log_dir), config | {"max_turns": max_turns}
        run = cls(locate(log_dir, max_turns), log_dir, max_turns, config)
        stored = _stored_config(run.path)
        if stored is not None:
            _compare(stored, config, run.path)
        run.path.mkdir(parents=True, exist_ok=True)
        run._rows = (run.path / "rows.jsonl").open("ab", buffering=0)
        try:
            run._lock()
            run._read_rows()
        except ValueError:
            run.close()
            raise
        write_json(run.path / "config.json", config)
        return run

    @property
    def done(self) -> Set[int]:
        """The task ids that are not owed; a view that follows what is appended."""
        return self._offsets.keys()

    def append(self, episode: Episode) -> None:
        """Add one finished episode (or one error row); it is written when this returns.

        Raises:
            OSError: the disk is full, say; the rows are as they were before.
        """
        # ASCII only: a text may hold half a surrogate pair, which no file takes as UTF-8.
        rest = (json.dumps(episode.to_dict()) + "\n").encode("ascii")
        offset = self._rows.seek(0, os.SEEK_END)
        try:
            while rest:
                rest = rest[self._rows.write(rest) :]
        except OSError:
            self._rows.truncate(offset)
            raise
        if not episode.is_owed:
            self._add(episode.task_id, offset, episode.error)

    def episodes(self) -> Iterator[Episode]:
        """The finished episodes by task id, one in memory at a time; errors are final ones."""
        offsets = (self._offsets[task_id] for task_id in sorted(self._offsets))
        return episodes_at(self.path / "rows.jsonl", offsets)

    def write_log(self) -> Path:
        """Write the published log from the rows and return its path; errors are not in it."""
        with replacing(self.log_path) as file:
            file.write("{")
            answered = sorted(self._offsets.keys() - self._unanswered)
            lines = lines_at(self.path / "rows.jsonl", map(self._offsets.get, answered))
            for count, (task_id, line) in enumerate(zip(answered, lines, strict=True)):
                file.write(f'{"," if count else ""}\n"{task_id}": {line.decode().rstrip()}')
            file.write("\n}\n")
        return self.log_path

    def write_summary(self, summary: dict[str, Any]) -> Path:
        """Write summary.json and return its path."""
        return write_json(self.path / "summary.json", summary)

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the journal; another process may open it then."""
        if self._rows is not None:
            self._rows.close()
            self._rows = None

    def _lock(self) -> None:
        try:
            fcntl.flock(self._rows, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another process is writing to {self.path}: wait for it, or give another {place()}"
            ) from error

    def _read_rows(self) -> None:
        """Find the finished episodes; cut off a last line that a kill has torn."""
        end = 0
        for offset, line, row in rows(self.path / "rows.jsonl", to_append=True):
            if row is None:
                log.warning("the last line of %s is torn: its episode is redone", self.path)
                break
            end = offset + len(line)
            if not is_owed(row.get("error")):
                self._add(row["task_id"], offset, row.get("error"))
        self._rows.truncate(end)

    def _add(self, task_id: int, offset: int, error: dict[str, Any] | None) -> None:
        self._offsets[task_id] = offset
        (self._unanswered.add if error else self._unanswered.discard)(task_id)


def locate(log_dir: str | Path, max_turns: int) -> Path:
    """The directory in which the run with `max_turns` turns lives, whether it exists or not."""
    log_dir = Path(log_dir)
    config = log_dir / "config.json"
    if not config.exists() or read_object(config).get("max_turns") == max_turns:
        return log_dir
    return log_dir / f"{max_turns}_turns"


def recorded(log_dir: str | Path, max_turns: int, known: dict[str, Any]) -> set[int]:
    """The task ids that an earlier call has finished; empty where no run is.

    Args:
        log_dir: the directory given to `RunDir.open`.
        max_turns: the turns of the run.
        known: the part of the configuration that is known before it is decided who answers.

    Raises:
        ValueError: if another run is there; the differing keys are named.
    """
    path = locate(log_dir, max_turns)
    stored = _stored_config(path)
    if stored is None:
        return set()
    _compare({key: stored.get(key) for key in known}, known, path)
    journal = path / "rows.jsonl"
    return set(finished(journal, to_append=True)) if journal.exists() else set()


def load_episodes(path: str | Path) -> list[Episode]:
    """The finished episodes of a run directory, a rows.jsonl or a published log, by task id.

    Rows with an error are left out; of several rows of one problem the last finished one counts.

    Raises:
        ValueError: if there is no such file, or a line or the log cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "rows.jsonl"
    if not path.exists():
        raise ValueError(f"{path} does not exist: give a run directory or a log of workflow_gen.py")
    return list(EpisodeLog(path).episodes())


def _stored_config(path: Path) -> dict[str, Any] | None:
    """The configuration of the run in `path`; None where none is, or none that has a row."""
    config, journal = path / "config.json", path / "rows.jsonl"
    has_rows = journal.exists() and journal.stat().st_size > 0
    if has_rows and not config.exists():
        raise ValueError(f"{path} has rows.jsonl but no config.json: give another {place()}")
    return read_object(config) if has_rows else None


def differences(stored: dict[str, Any], config: dict[str, Any], but: Set[str] = frozenset()) -> str:
    """The keys in which two configurations differ with both values, as a text; "" for none.

    Keys in `NOT_COMPARED` and in `but` may differ.
    """
    plain = json.loads(json.dumps(config))
    keys = sorted((stored.keys() | plain.keys()) - NOT_COMPARED - but)
    differing = [key for key in keys if stored.get(key) != plain.get(key)]
    return ", ".join(f"{key} {stored.get(key)!r} -> {plain.get(key)!r}" for key in differing)


def _compare(stored: dict[str, Any], config: dict[str, Any], path: Path) -> None:
    """Raise ValueError naming the keys in which two configurations differ.

    A run in which nothing has been finished yet, since its model could not answer say, may be
    changed.
    """
    changes = differences(stored, config)
    if changes and finished(path / "rows.jsonl", to_append=True):
        raise ValueError(
            f"{path} holds a run of another configuration ({changes}): give another {place()}, "
            "or the same arguments to go on with it"
        )
