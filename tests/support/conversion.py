"""Conversions in the process of a test: a run on disk, the program, what it wrote."""

import json
from pathlib import Path
from unittest import mock

import workflow_convert
from rise.episodes.episode import Episode


def write_run(directory: Path, episodes: list[Episode], turns: int = 2, **config) -> Path:
    """A run directory as workflow_gen.py leaves it; returns the published log in it."""
    directory.mkdir(parents=True, exist_ok=True)
    records = [episode.to_dict() for episode in episodes]
    lines = [json.dumps(record) + "\n" for record in records]
    (directory / "rows.jsonl").write_text("".join(lines))
    config = {"env": "gsm8k", "max_turns": turns, "context_window": None} | config
    (directory / "config.json").write_text(json.dumps(config))
    log = directory / f"{turns}_turns.json"
    log.write_text(json.dumps({str(record["task_id"]): record for record in records}))
    return log


def published(episode: Episode) -> dict:
    """The record of an episode as the published code logs it, which ends with the last prompt."""
    record = episode.to_dict()
    for key in ("answers", "verdicts", "finish_reasons", "models", "usage", "chosen"):
        del record["turn_history"][key]
    said_by = {"assistant": "agent"}
    record["dialogue"] = [
        {**message, "role": said_by.get(message["role"], message["role"])}
        for message in record["dialogue"][:-1]
    ]
    return record


def convert(*arguments) -> int:
    """The exit code; the picture of the weights, which takes longest, is left empty."""
    with mock.patch("rise.dataset.writer.plot_weights", lambda weights, path: path.touch()):
        return convert_and_draw(*arguments)


def convert_and_draw(*arguments) -> int:
    return workflow_convert.main([str(argument) for argument in arguments])


def read(path: Path) -> list[dict]:
    return json.loads(path.read_text())
