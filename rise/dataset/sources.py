"""The logs that are converted: their episodes, and what the run that wrote them was set to."""

import functools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import envs
from envs.prompts import PromptStyle
from fastchat.model.files import file_sha256
from fastchat.utils import similar
from rise.episodes import shard
from rise.episodes.episode import Episode, Message
from rise.episodes.journal import locate
from rise.episodes.log import EpisodeLog
from rise.episodes.rows import finished
from rise.program.files import read_object

QUICK = 3.0
"""Seconds that may pass without a progress line."""
SLOW_REFRESH = 30.0
"""Seconds between two progress lines where the output is a file."""
PUBLISHED_NAME = re.compile(r"(\d+)_turns\.json")
TYPES = {
    "env": str,
    "stage": str,
    "context_window": int,
    "correct_to_correct": bool,
    "problems": int,
    "shard": str,
    "prompt_style": str,
}
"""What config.json has for the keys that are read here, or null."""


@dataclass(frozen=True)
class Source:
    """One log and the settings it was generated with; None is what a published log does not say."""

    path: Path
    """As given: a run directory or a file."""
    rows: Path
    sha256: str
    """Of the file with the episodes: a log that has grown is another input."""
    env: str | None
    context_window: int | None
    """As in `rise.episodes.episode.visible`; None shows all earlier attempts."""
    correct_to_correct: bool
    """Whether episodes that were right at turn 1 went on."""
    stage: str | None = None
    run: Path | None = None
    """The directory of the run, resolved."""
    size: int | None = None
    """How many problems the run plays."""
    prompt_style: str | None = None


class Pool:
    """The episodes of several logs, one log after the other, each by task id.

    `env` and `style` are for logs that do not say theirs.
    """

    def __init__(self, sources: list[Source], env: str | None, style: str):
        self.sources, self._env, self._style = sources, env, style
        self._logs = [EpisodeLog(source.rows) for source in sources]
        self.cut = 0
        """Episodes of the last pass whose dialogue was cut, see `Episode.is_cut`."""

    def __len__(self) -> int:
        return sum(map(len, self._logs))

    def unfinished(self) -> list[str]:
        """What is said of each log whose run was not finished; empty where all were."""
        return [
            f"{source.path} holds {count} of its {source.size} problems: the run is not finished, "
            "the command that began it goes on with it"
            for source, log in zip(self.sources, self._logs, strict=True)
            if source.size is not None and (count := _finished_of(source, log)) < source.size
        ]

    def episodes(self, doing: str) -> Iterator[tuple[int, Episode]]:
        """(number of the log, episode); a progress line appears where it takes long."""
        from tqdm import tqdm

        pause = 0.2 if sys.stderr.isatty() else SLOW_REFRESH
        line = tqdm(total=len(self), desc=doing, unit="episode", delay=QUICK, mininterval=pause)
        self.cut = 0
        with line:
            for number, log in enumerate(self._logs):
                for episode in log.episodes():
                    self.cut += episode.is_cut
                    yield number, episode
                    line.update()

    def opening(self, number: int, episode: Episode) -> list[Message] | None:
        """The messages before the first attempt where the log has no dialogues, else None."""
        if episode.dialogue:
            return None
        env = self.sources[number].env or self._env
        return load_prompts(env, self._style).opening(episode.query)


def read_source(path: str | Path) -> Source:
    """A run directory, a rows.jsonl or a published log `<T>_turns.json`."""
    path, rows = Path(path), rows_of(path)
    if not rows.is_file() and path.is_dir():
        raise ValueError(
            f"--filepath {path}: this directory holds no run (no rows.jsonl); give one that "
            "workflow_gen.py was given as its --log_dir, or a log in it"
        )
    if not rows.is_file():
        raise ValueError(
            f"--filepath {path}: there is no such log or run directory{similar(path)}; "
            "workflow_gen.py writes it into its --log_dir"
        )
    run, config = _config(rows)
    return Source(
        path=path,
        rows=rows,
        sha256=file_sha256(rows),
        env=config.get("env"),
        context_window=config.get("context_window"),
        correct_to_correct=bool(config.get("correct_to_correct")),
        stage=config.get("stage"),
        run=run,
        size=_size(config),
        prompt_style=config.get("prompt_style"),
    )


def prompt_styles(sources: list[Source], style: str) -> dict[str, str]:
    """Log -> the style of its prompts; a published log does not say, its rows may have none."""
    published = f"as logged, {style} where that has none"
    return {str(source.path): source.prompt_style or published for source in sources}


def rows_of(path: str | Path) -> Path:
    """The file with the episodes of a log: a run directory's rows.jsonl, or the file itself."""
    return Path(path) / "rows.jsonl" if Path(path).is_dir() else Path(path)


def problems_with(sources: list[Source], env: str | None) -> list[str]:
    problems = []
    for number, source in enumerate(sources):
        if env and source.env and source.env != env:
            problems.append(f"--env is {env}, but {source.path} is a run of {source.env}")
        if source.stage == "eval":
            problems.append(
                f"--filepath {source.path} is an evaluation (its config.json has the stage eval): "
                "training on its problems spoils them as a test; give a run of workflow_gen.py, "
                "which takes every --feedback too"
            )
        for earlier in sources[:number]:
            is_same_run = source.run is not None and source.run == earlier.run
            if is_same_run or source.sha256 == earlier.sha256:
                shared = "of the same run" if is_same_run else "equal, byte by byte"
                problems.append(
                    f"--filepath {earlier.path} and {source.path} are {shared}: give one of them, "
                    "else every row is there twice"
                )
    return problems


@functools.cache
def load_prompts(env: str | None, style: str) -> PromptStyle:
    """The texts around the questions of a log that holds no dialogues."""
    return envs.find(env or "gsm8k").load_style(style)


def _config(rows: Path) -> tuple[Path | None, dict[str, Any]]:
    """The run's directory and configuration; None and an empty one for a published log."""
    directory, turns = rows.parent, None
    published = PUBLISHED_NAME.fullmatch(rows.name)
    if published:
        turns = int(published[1])
        directory = locate(directory, turns)
    path = directory / "config.json"
    if not path.is_file():
        return None, {}
    config = read_object(path)
    if turns is not None and config.get("max_turns") != turns:
        return None, {}
    for key, kind in TYPES.items():
        if config.get(key) is not None and type(config[key]) is not kind:
            raise ValueError(
                f"{path}: {key} is {config[key]!r}, expected {kind.__name__} or null: correct it, "
                "or give a copy of the log without its config.json"
            )
    return directory.resolve(), config


def _size(config: dict[str, Any]) -> int | None:
    if config.get("problems") is None:
        return None
    return len(shard.task_ids(config))


def _finished_of(source: Source, log: EpisodeLog) -> int:
    assert source.run is not None and source.size is not None, source
    journal = source.run / "rows.jsonl"
    # A log has no problem that ended without an answer: only the rows tell whether some are owed.
    is_full = len(log) >= source.size or not journal.is_file()
    return len(log) if is_full else len(finished(journal))
