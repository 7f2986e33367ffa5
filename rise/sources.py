"""The logs that are converted: their episodes, and what the run that wrote them was set to."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rise.trajectory import Episode, load_episodes, locate, read_json

if TYPE_CHECKING:
    from envs.prompts import PromptStyle

PUBLISHED_NAME = re.compile(r"(\d+)_turns\.json")


@dataclass(frozen=True)
class Source:
    """One log and the settings it was generated with."""

    path: Path
    sha256: str
    """Of the file with the episodes: a log that has grown is another input."""
    env: str | None
    """Name of the environment; None for a published log, which does not say."""
    context_window: int | None
    """As in `rise.episode.visible`; None shows all earlier attempts."""
    correct_to_correct: bool
    """Whether episodes that were right at turn 1 went on."""

    def episodes(self) -> list[Episode]:
        """The finished episodes by task id."""
        return load_episodes(self.path)


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
        sha256=_checksum(rows),
        env=config.get("env"),
        context_window=config.get("context_window"),
        correct_to_correct=bool(config.get("correct_to_correct")),
    )


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
