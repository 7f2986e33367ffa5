"""A run of workflow_eval.py, opened again: to compare it, to grade it anew, to show it.

Everything is computed from the rows, so that an old run is measured by today's definitions.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rise.episodes.episode import Episode
from rise.json_files import read_object
from rise.metrics import headline_hits, summarise
from rise.siblings import complete, is_parallel, sibling
from rise.unanswered import measured_episodes
from rise.votes import SameAnswer


@dataclass(frozen=True)
class EvaluatedRun:
    """The episodes of one evaluation and what they measure."""

    name: str
    """What tables call it."""
    path: Path
    config: dict[str, Any]
    episodes: list[Episode]
    parallel: list[Episode] | None
    """The run with several samples at turn 1 that the same --log_dir holds; None without one."""
    hits: dict[str, dict[int, bool]]
    """Metric -> task id -> whether the problem counts as right, see `headline_hits`."""
    metrics: dict[str, Any]
    """What `rise.metrics.summarise` returns."""

    @property
    def queries(self) -> dict[int, str]:
        """Task id -> question."""
        return {episode.task_id: episode.query for episode in self.episodes}


def open_run(path: str | Path, name: str | None = None) -> EvaluatedRun:
    """Read a finished or unfinished evaluation from its run directory.

    Args:
        path: the directory that holds config.json and rows.jsonl.
        name: what tables call the run; by default the name of its directory.

    Raises:
        ValueError: if it is no evaluation of ours, or has no finished episode.
    """
    path = Path(path)
    config = read_config(path, stage="eval")
    episodes = measured_episodes(path, config)
    if not episodes:
        raise ValueError(f"{path} has no finished episode yet: go on with that run first")
    other = None if is_parallel(config) else sibling(path, log_dir_of(path), config)
    parallel = measured_episodes(other, read_object(other / "config.json")) if other else None
    allowed = {"max_turns": config["max_turns"], "feedback": config["feedback"]}
    same = grader_of(config)
    return EvaluatedRun(
        name=name or path.resolve().name,
        path=path,
        config=config,
        episodes=episodes,
        parallel=parallel,
        hits=headline_hits(episodes, same, parallel=parallel, **allowed),
        metrics=summarise(episodes, same, parallel=parallel, **allowed),
    )


def with_sibling(run: EvaluatedRun) -> EvaluatedRun:
    """The evaluation that shows a finished run and its sibling together: the one with the turns.

    Where that is the other one, its summary.json gets the vote of the parallel samples.
    """
    other = sibling(run.path, log_dir_of(run.path), run.config)
    if other is None or not is_parallel(run.config):
        return run
    joint = open_run(other)
    complete(other, joint.metrics)
    return joint


def read_config(path: Path, stage: str | None = None) -> dict[str, Any]:
    """The configuration of a run directory.

    Raises:
        ValueError: if there is none, or it is of another stage than `stage`.
    """
    if not (path / "config.json").is_file() or not (path / "rows.jsonl").is_file():
        raise ValueError(f"{path} is no run: give a directory with config.json and rows.jsonl")
    config = read_object(path / "config.json")
    if stage is not None and config.get("stage") != stage:
        raise ValueError(
            f"{path} is a run of stage {config.get('stage')!r}: give one of workflow_{stage}.py"
        )
    return config


def grader_of(config: dict[str, Any]) -> SameAnswer:
    """Whether two answers are equal, by the environment of a run; remembers what it was asked.

    Raises:
        ValueError: if the environment is not installed here.
    """
    import envs

    return functools.cache(envs.find(config["env"]).same_answer)


def log_dir_of(path: Path) -> Path:
    """The --log_dir that a run was given: it may live in `<max_turns>_turns/` below that."""
    inside = path.name.endswith("_turns") and (path.parent / "config.json").is_file()
    return path.parent if inside else path
