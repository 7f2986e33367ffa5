"""The journal of a run: episodes appended as they finish, a configuration that must not change.

A run directory holds `config.json`, `rows.jsonl` (one episode per line, in the order in which they
finished), `<max_turns>_turns.json` (the published log: an object keyed by the index as a string)
and `summary.json`. The record itself is in `rise.episodes.episode`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from fastchat.utils import replacing, similar, write_json
from rise.episodes.episode import ASKED_LAST, Episode, is_owed
from rise.episodes.log import EpisodeLog
from rise.episodes.rows import episodes_at, lines_at, naming, rows
from rise.program.files import read_object

log = logging.getLogger(__name__)

LOCK = ".run.lock"
"""Hidden, since it stays behind after kill -9; the lock itself ends with its process."""
NOT_COMPARED = frozenset(
    """
    api_base command concurrency controller_address data_path date engines git_commit give_up_after
    left_out log_dir logging_dir max_cost_usd prices report_to request_timeout shown_attempts
    verbose versions wait_for_server wandb_group wandb_name wandb_project workers_per_model
    """.split()
)
"""Keys of config.json that may differ when a run is resumed. The problems themselves are compared
by their checksum, so that a moved file does not count as another configuration."""


PROMPTS = ("prompt_sha256", "more_prompts_sha256")
IMPLIED = {
    "models": ("kinds", "fingerprints"),
    "env": ("env_sha256", *PROMPTS),
    "prompt_style": PROMPTS,
    "feedback": PROMPTS[1:],
    "expert_sees": PROMPTS[1:],
    "shown_attempt": ("shown_sha256",),
}
"""Keys that differ by themselves where another one does."""
OF_NOTHING = hashlib.sha256().hexdigest()[:16]
"""What earlier versions recorded for a folder without a model."""


class RunDir:
    """A run directory; once it is started, open for appending by one process at a time."""

    def __init__(self, log_dir: str | Path, max_turns: int):
        self.path = locate(log_dir, max_turns)
        self.log_path = Path(log_dir) / f"{max_turns}_turns.json"
        self.max_turns = max_turns
        self.stored = _stored_config(self.path)
        """The configuration of the run that is there; None without one, or before its first row."""
        self.refusals: Counter[int] = Counter()
        """Task id -> in how many calls it was refused or its function raised: a call asks once."""
        self.has_repeats = False
        """Whether a problem is finished in several rows, of which the last one counts."""
        self._offsets: dict[int, int] = {}
        self._unanswered: set[int] = set()
        """Those that ended with a final error."""
        self._end = self._size = 0
        self._file: IO[bytes] | None = None
        self._lock = FileLock(self.path / LOCK, fallback_to_soft=False)

    @classmethod
    def find(
        cls, log_dir: str | Path, max_turns: int, seen: Callable[[Episode], None] | None = None
    ) -> RunDir:
        """What earlier calls have left there, in one pass over its rows; nothing is written.

        The run lives in `log_dir` itself if no run is there or one with the same `max_turns`, else
        in `log_dir/<max_turns>_turns/`: the two published evaluations share one `--log_dir`. `seen`
        gets every episode, finished or failed.
        """
        run = cls(log_dir, max_turns)
        if run.stored is not None:
            run._read(seen)
        return run

    def check(self, config: dict[str, Any]) -> None:
        """Refuse another configuration than that of the run there, once an episode is finished.

        More problems of the same file are the same run: it has the first ones already.
        """
        if self.stored is None or not self.done:
            return
        before, now = (each.get("problems", 0) for each in (self.stored, config))
        more = frozenset({"problems"} if now >= before else ())
        if changes := differences(self.stored, config | {"max_turns": self.max_turns}, more):
            fewer = "" if more else f"; with --limit {before} or more it goes on"
            raise ValueError(
                f"{self.path} holds a run of another configuration ({changes}): give another "
                f"--log_dir, or the same arguments to go on with it{fewer}"
            )

    def start(self, config: dict[str, Any]) -> None:
        """Open the rows for appending, cut off a last line that a kill has torn, write the config.

        ValueError if another process is writing to them, or has since they were read.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self.lock()
        self._file = (self.path / "rows.jsonl").open("ab", buffering=0)
        if os.fstat(self._file.fileno()).st_size != self._size:
            self.close()
            raise ValueError(self._busy)
        if self._end < self._size:
            log.warning("the last line of %s is torn: its episode is redone", self.path)
            self._file.truncate(self._end)
        self.write_config(config)

    def lock(self) -> None:
        """Let nobody else write to the run until it is closed; ValueError if somebody does."""
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise ValueError(self._busy) from error

    @property
    def _busy(self) -> str:
        return f"another process is writing to {self.path}: wait for it, or give another --log_dir"

    def write_config(self, config: dict[str, Any]) -> None:
        write_json(self.path / "config.json", config | {"max_turns": self.max_turns})

    @property
    def done(self) -> Set[int]:
        return self._offsets.keys()

    def append(self, episode: Episode) -> None:
        """Add one episode, finished or failed; written on return, undone where the disk is full."""
        # ASCII only: a text may hold half a surrogate pair, which no file takes as UTF-8.
        rest = (json.dumps(episode.to_dict()) + "\n").encode("ascii")
        assert self._file is not None, "not started"
        offset = self._file.seek(0, os.SEEK_END)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(offset)
            raise
        if not episode.is_owed:
            self._add(episode.task_id, offset, episode.error)

    def episodes(self) -> Iterator[Episode]:
        offsets = (self._offsets[task_id] for task_id in sorted(self._offsets))
        return episodes_at(self.path / "rows.jsonl", offsets)

    def write_log(self, seen: Callable[[Episode], None] | None = None) -> Path:
        """Write the published log from the rows; `seen` gets every episode that is not owed."""
        with replacing(self.log_path) as file:
            mark = "{"
            done = sorted(self._offsets)
            lines = lines_at(self.path / "rows.jsonl", map(self._offsets.__getitem__, done))
            for task_id, line in zip(done, lines, strict=True):
                if seen:
                    with naming(self.path / "rows.jsonl", self._offsets[task_id]):
                        seen(Episode.from_dict(json.loads(line)))
                if task_id not in self._unanswered:
                    file.write(f'{mark}\n"{task_id}": {line.decode().rstrip()}')
                    mark = ","
            file.write("{\n}\n" if mark == "{" else "\n}\n")
        return self.log_path

    def write_summary(self, summary: dict[str, Any]) -> Path:
        return write_json(self.path / "summary.json", summary)

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._lock.is_locked:
            (self.path / LOCK).unlink(missing_ok=True)
            self._lock.release()

    def _read(self, seen: Callable[[Episode], None] | None) -> None:
        path = self.path / "rows.jsonl"
        for offset, line, row in rows(path, to_append=True):
            self._size = offset + len(line)
            if row is None:
                break
            self._end = self._size
            task_id, error = row["task_id"], row.get("error")
            if error is not None and is_owed(error):
                self.refusals[task_id] += error["kind"] in ASKED_LAST
            else:
                self.has_repeats |= task_id in self._offsets
                self._add(task_id, offset, error)
            if seen:
                with naming(path, offset):
                    seen(Episode.from_dict(row))

    def _add(self, task_id: int, offset: int, error: dict[str, Any] | None) -> None:
        self._offsets[task_id] = offset
        self._unanswered.discard(task_id)
        if error:
            self._unanswered.add(task_id)


def locate(log_dir: str | Path, max_turns: int) -> Path:
    """The directory in which the run with `max_turns` turns lives, whether it exists or not."""
    log_dir = Path(log_dir)
    config = log_dir / "config.json"
    if not config.exists() or read_object(config).get("max_turns") == max_turns:
        return log_dir
    return log_dir / f"{max_turns}_turns"


def load_episodes(path: str | Path) -> list[Episode]:
    """The finished episodes of a run directory, a rows.jsonl or a published log, by task id."""
    path = Path(path)
    if path.is_dir():
        path = path / "rows.jsonl"
    if not path.exists():
        remedy = "give a run directory or a log of workflow_gen.py"
        raise ValueError(f"{path} does not exist{similar(path)}: {remedy}")
    return list(EpisodeLog(path).episodes())


def _stored_config(path: Path) -> dict[str, Any] | None:
    config, journal = path / "config.json", path / "rows.jsonl"
    has_rows = journal.exists() and journal.stat().st_size > 0
    if has_rows and not config.exists():
        raise ValueError(f"{path} has rows.jsonl but no config.json: give another --log_dir")
    return read_object(config) if has_rows else None


def fingerprints(config: dict[str, Any]) -> list[str | None]:
    """Those of checkpoints and functions; None for other names."""
    return [None if one == OF_NOTHING else one for one in config.get("fingerprints") or []]


def differences(stored: dict[str, Any], config: dict[str, Any], but: Set[str] = frozenset()) -> str:
    """The keys in which two configurations differ with both values, but for `but`; "" for none.

    What differs because something else does is not told.
    """
    old, new = (
        {key: value for key, value in each.items() if key not in NOT_COMPARED | but}
        | ({"fingerprints": fingerprints(each)} if "fingerprints" in each else {})
        for each in (stored, json.loads(json.dumps(config)))
    )
    differing = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    implied = {key for cause in differing for key in IMPLIED.get(cause, ())}
    told = []
    for key in sorted(differing - implied):
        before, now = old.get(key), new.get(key)
        if key == "data_sha256" and stored.get("data_path") != config.get("data_path"):
            key, before, now = "data_path", stored.get("data_path"), config.get("data_path")
        if key == "fingerprints":
            models = zip(new["models"], before or (), now or (), strict=False)
            changed = dict.fromkeys(model for model, one, other in models if one != other)
            told.append(f"{' and '.join(changed)} has changed since")
        else:
            told.append(f"{key}: {_short(before, now)} -> {_short(now, before)}")
    return ", ".join(told)


def _short(value: Any, other: Any) -> str:
    """A value that is told beside another one: a list of equal values once, a word without quotes.

    >>> _short(["a", "a"], ["b", "b"]), _short([1, 1], [1]), _short("", "x")
    ('a', '[1, 1]', "''")
    """
    lists = isinstance(value, list) and isinstance(other, list) and len(value) == len(other)
    if lists and value and all(each == value[0] for each in value):
        value = value[0]
    return value if isinstance(value, str) and re.fullmatch(r"[^\s,]+", value) else repr(value)
