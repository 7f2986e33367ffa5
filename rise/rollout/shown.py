"""Another problem's attempts, shown as the model's own: does it read them?

The attempts come from a finished evaluation (`--shown_attempts RUN`). A gain that comes from
reading the attempt vanishes then; at turn 2 nothing else differs from RUN. A drop alone is no
evidence of correction: a model that only copies drops too. See `rise.metrics.turns.fresh_draws`.
"""

import random
from pathlib import Path
from typing import Any

from rise.episodes import shard
from rise.episodes.rows import finished_episodes
from rise.metrics.evaluation import read_config
from rise.program.files import json_sha256

Shown = dict[int, list[dict[str, Any]]]
"""Task id -> the attempts of another problem, turn by turn, as `Turn.shown` has them."""


def attempts_of(path: Path, config: dict[str, Any]) -> Shown:
    """What a run with this configuration shows, from the evaluation in `path`, by its seed."""
    run, turns = read_config(path, "eval"), config["max_turns"] - 1
    episodes = finished_episodes(path / "rows.jsonl")
    attempts = {e.task_id: [turn.action for turn in e.turns] for e in episodes if not e.error}
    wrong = None
    if run["data_sha256"] != config["data_sha256"]:
        wrong = "it has other problems; give one with the same --data_path"
    elif run["feedback"] != "none" or run["max_turns"] < turns:
        wrong = f"give an evaluation with --feedback none and --max_turns {turns} or more"
    elif len(episodes) < len(shard.task_ids(run)):
        wrong = "it is not finished: go on with that run first"
    elif len(attempts) < 2:
        wrong = "it has fewer than two answered problems"
    if wrong:
        raise ValueError(f"--shown_attempts {path}: {wrong}")
    ids = sorted(attempts)
    random.Random(config["seed"]).shuffle(ids)
    other = {ids[i]: ids[i ^ 1] for i in range(len(ids) - len(ids) % 2)}
    if len(ids) % 2:
        a, b, c = ids[-3:]
        other |= {a: b, b: c, c: a}
    return {
        task_id: [
            {"task_id": source, "action": action} for action in attempts[source][: max(1, turns)]
        ]
        # All problems, so that every shard of a run has the same checksum.
        for task_id in range(config["problems"])
        # One that RUN could not answer has nobody to exchange with.
        for source in [other.get(task_id, ids[0])]
    }


def checksum(shown: Shown) -> str:
    """Of all that is shown: a run goes on only with the same."""
    return json_sha256(shown, sort_keys=True)
