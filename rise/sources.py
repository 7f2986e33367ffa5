"""The logs that are converted: their episodes, and what the run that wrote them was set to."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rise.episode import Episode
from rise.logs import EpisodeLog
from rise.trajectory import locate, read_json

if TYPE_CHECKING:
    from envs.prompts import PromptStyle

QUICK = 3.0
"""Seconds that may pass without a progress line."""
SLOW_REFRESH = 30.0
"""Seconds between two progress lines where the output is a file."""
PUBLISHED_NAME = re.compile(r"(\d+)_turns\.json")


@dataclass(frozen=True)
class Source:
    """One log and the settings it was generated with."""

    path: Path
    """As given: a run directory or a file."""
    rows: Path
    """The file with the episodes."""
    sha256: str
    """Of the file with the episodes: a log that has grown is another input."""
    env: str | None
    """Name of the environment; None for a published log, which does not say."""
    context_window: int | None
    """As in `rise.episode.visible`; None shows all earlier attempts."""
    correct_to_correct: bool
    """Whether episodes that were right at turn 1 went on."""
    stage: str | None = None
    """gen or eval; None for a published log, which does not say."""


class Pool:
    """The episodes of several logs, one log after the other, each by task id.

    Args:
        sources: the logs; all are indexed at once.
        limit: use the first so many episodes of the pool; None for all.

    Raises:
        ValueError: if a log is damaged.
    """

    def __init__(self, sources: list[Source], limit: int | None):
        self.sources = sources
        self._logs = [EpisodeLog(source.rows) for source in sources]
        found = sum(map(len, self._logs))
        self._size = found if limit is None else min(limit, found)

    def __len__(self) -> int:
        return self._size

    def episodes(self, doing: str) -> Iterator[tuple[int, Episode]]:
        """(number of the log, episode); a progress line appears where it takes long.

        Args:
            doing: what is done with them, for that line.
        """
        from tqdm import tqdm

        pause = 0.2 if sys.stderr.isatty() else SLOW_REFRESH
        line = tqdm(total=len(self), desc=doing, unit="episode", delay=QUICK, mininterval=pause)
        left = self._size
        with line:
            for number, log in enumerate(self._logs):
                for episode in log.episodes(left):
                    yield number, episode
                    left -= 1
                    line.update()


def read_source(path: str | Path) -> Source:
    """A run directory, a rows.jsonl or a published log `<T>_turns.json`.

    Raises:
        ValueError: if there is no such log.
    """
    path = Path(path)
    rows = path / "rows.jsonl" if path.is_dir() else path
    if not rows.is_file():
        raise ValueError(
            f"--filepath {path}: there is no such log or run directory; workflow_gen.py writes it "
            "into its --log_dir"
        )
    config = _config(rows)
    return Source(
        path=path,
        rows=rows,
        sha256=_checksum(rows),
        env=config.get("env"),
        context_window=config.get("context_window"),
        correct_to_correct=bool(config.get("correct_to_correct")),
        stage=config.get("stage"),
    )


@functools.cache
def load_prompts(env: str | None, style: str) -> PromptStyle:
    """The texts around the questions of a log that holds no dialogues.

    Args:
        env: name of the environment; None is that of a published log without --env, gsm8k.
        style: as --prompt_style takes it.

    Raises:
        ValueError: if there is no such environment or style.
    """
    import envs

    return envs.find(env or "gsm8k").load_style(style)


def _config(rows: Path) -> dict[str, Any]:
    """The config.json of the run that wrote this file; empty for a published log."""
    directory, turns = rows.parent, None
    published = PUBLISHED_NAME.fullmatch(rows.name)
    if published:
        turns = int(published[1])
        directory = locate(directory, turns)
    path = directory / "config.json"
    if not path.is_file():
        return {}
    config = read_json(path)
    return config if turns is None or config.get("max_turns") == turns else {}


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
