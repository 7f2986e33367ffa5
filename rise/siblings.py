"""The two runs of one evaluation: turns one after the other, and samples side by side.

The paper compares the vote over K turns (m1@tK) with the vote over K samples of turn 1 (mK@t1).
Both commands may be given one --log_dir; each then finds the other's run there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rise.episodes import shard
from rise.episodes.journal import read_json, write_json
from rise.episodes.rows import finished

SAME = ("env", "env_sha256", "data_sha256", "prompt_sha256", "problems", "shard", "top_p")
"""Keys of config.json that both runs share."""
SAME_AT_TURN_1 = ("models", "fingerprints", "kinds", "temperature", "max_new_tokens")
"""Keys with one value per turn, of which the first one is shared."""


def sibling(run_path: Path, log_dir: str | Path, config: dict[str, Any]) -> Path | None:
    """The finished run that completes this one, or None.

    A run with one turn and several samples is completed by one with several turns and one sample
    at turn 1, and the other way round.
    """
    log_dir = Path(log_dir)
    for path in [log_dir, *sorted(log_dir.glob("*_turns"))]:
        if path == run_path or not (path / "summary.json").exists():
            continue
        other = read_json(path / "config.json")
        if other["stage"] != "eval" or is_parallel(config) == is_parallel(other):
            continue
        if _first_turns_agree(config, other) and _is_finished(path, other):
            return path
    return None


def is_parallel(config: dict[str, Any]) -> bool:
    """Whether the run has one turn and several samples."""
    return config["max_turns"] == 1 and config["num_of_samples"][0] > 1


def complete(path: Path, metrics: dict[str, Any]) -> None:
    """Put metrics that a later run has made possible into a finished run's summary.json."""
    summary = read_json(path / "summary.json")
    write_json(path / "summary.json", summary | {"metrics": metrics})


def _is_finished(path: Path, config: dict[str, Any]) -> bool:
    return finished(path / "rows.jsonl").keys() >= set(shard.task_ids(config))


def _first_turns_agree(config: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(config.get(key) == other.get(key) for key in SAME) and all(
        config[key][0] == other[key][0] for key in SAME_AT_TURN_1
    )
