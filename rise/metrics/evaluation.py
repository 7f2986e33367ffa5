"""A run of workflow_eval.py, opened again, and measured from its rows by today's definitions.

The paper compares the vote over K turns (m1@tK) with the vote over K samples of turn 1 (mK@t1).
Both commands may be given one --log_dir; each then finds the other's run, its sibling, there.

An episode whose prompt never fits the model's context ends with a final error: it is not owed and
is never data. Metrics must not drop it, since the longest problems are hard ones and their loss
would look like a gain. So for metrics alone the attempts that could not be made stand there as
attempts without an answer: not right at that turn, no vote, and in every denominator (n stays the
number of problems). The same holds for samples of a turn that a server filtered: without them one
problem with fewer samples would lower the K of mK@t1 for all.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fastchat.utils import write_json
from rise.episodes import shard
from rise.episodes.episode import Episode, Turn
from rise.episodes.feedback import is_forced
from rise.episodes.journal import differences, fingerprints
from rise.episodes.rows import finished_episodes
from rise.metrics.summary import summarise
from rise.metrics.turns import NOT_MADE
from rise.metrics.votes import SameAnswer
from rise.program.files import read_object


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
    """Metric -> task id -> whether the problem counts as right."""
    metrics: dict[str, Any]
    """Both are those of `rise.metrics.summary.summarise`."""

    @property
    def queries(self) -> dict[int, str]:
        return {episode.task_id: episode.query for episode in self.episodes}


def open_run(
    path: str | Path, name: str | None = None, episodes: list[Episode] | None = None
) -> EvaluatedRun:
    """Read an evaluation, finished or not; `episodes` are those that somebody has read already."""
    path = Path(path)
    config = read_config(path, stage="eval")
    if episodes is None:
        episodes = finished_episodes(path / "rows.jsonl")
    if not episodes:
        raise ValueError(f"{path} has no finished episode yet: go on with that run first")
    episodes = [measured(episode, config) for episode in episodes]
    other = None if is_parallel(config) else sibling(path, config)
    parallel = [measured(episode, other.config) for episode in other.episodes] if other else None
    hits, metrics = summarise(
        episodes,
        grader_of(config),
        max_turns=config["max_turns"],
        feedback=config["feedback"],
        parallel=parallel,
    )
    name = name or path.resolve().name
    return EvaluatedRun(name, path, config, episodes, parallel, hits, metrics)


def with_sibling(run: EvaluatedRun) -> EvaluatedRun:
    """The run or its sibling, whichever has the turns, with both votes in its summary.json."""
    other = sibling(run.path, run.config) if is_parallel(run.config) else None
    if other is None:
        return run
    joint = open_run(other.path, episodes=other.episodes)
    summary = read_object(other.path / "summary.json")
    write_json(other.path / "summary.json", summary | {"metrics": joint.metrics})
    return joint


def read_config(path: Path, stage: str | None = None) -> dict[str, Any]:
    if not (path / "config.json").is_file() or not (path / "rows.jsonl").is_file():
        raise ValueError(f"{path} is no run: give a directory with config.json and rows.jsonl")
    config = read_object(path / "config.json")
    if stage is not None and config.get("stage") != stage:
        raise ValueError(
            f"{path} is a run of stage {config.get('stage')!r}: give one of workflow_{stage}.py"
        )
    return config


def grader_of(config: dict[str, Any]) -> SameAnswer:
    """Whether two answers are equal, by the environment of a run; remembers what it was asked."""
    import envs

    return functools.cache(envs.find(config["env"]).same_answer)


def log_dir_of(path: Path) -> Path:
    """The --log_dir that a run was given: it may live in `<max_turns>_turns/` below that."""
    inside = path.name.endswith("_turns") and (path.parent / "config.json").is_file()
    return path.parent if inside else path


SAME = ("env", "env_sha256", "data_sha256", "prompt_sha256", "problems", "shard", "top_p")
"""Keys of config.json that both runs share."""
SAME_AT_TURN_1 = ("models", "kinds", "temperature", "max_new_tokens")
"""Keys with one value per turn, of which the first one is shared."""


class Sibling(NamedTuple):
    """A finished run and its episodes, as they are recorded."""

    path: Path
    config: dict[str, Any]
    episodes: list[Episode]


def sibling(run_path: Path, config: dict[str, Any]) -> Sibling | None:
    """The finished run of several samples, or of several turns, that completes this one."""
    for path, other, told in _others(run_path, config):
        if not told:
            episodes = finished_episodes(path / "rows.jsonl")
            if {episode.task_id for episode in episodes} >= set(shard.task_ids(other)):
                return Sibling(path, other, episodes)
    return None


def apart(run: EvaluatedRun) -> list[str]:
    """A line for each run beside this one that would complete it, had it the same settings."""
    return [
        f"{path} is no part of this table (there -> here: {told}): give every model a --log_dir of "
        "its own"
        for path, _, told in _others(run.path, run.config)
        if told
    ]


def _others(run_path: Path, config: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any], str]]:
    """Runs of several samples, or of several turns, beside this one, and how turn 1 differs."""
    log_dir = log_dir_of(run_path)
    for path in [log_dir, *sorted(log_dir.glob("*_turns"))]:
        if path == run_path or not (path / "summary.json").exists():
            continue
        other = read_object(path / "config.json")
        if other["stage"] == "eval" and is_parallel(config) != is_parallel(other):
            yield path, other, differences(_first_turn(other), _first_turn(config))


def is_parallel(config: dict[str, Any]) -> bool:
    return config["max_turns"] == 1 and config["num_of_samples"][0] > 1


def _first_turn(config: dict[str, Any]) -> dict[str, Any]:
    """What a run's first turn depends on; the path of its data is only told."""
    shared = {key: config.get(key) for key in (*SAME, "data_path")}
    first = {key: config[key][:1] for key in SAME_AT_TURN_1}
    return shared | first | {"fingerprints": fingerprints(config)[:1]}


BLANK = {
    "actions": "",
    "answers": None,
    "verdicts": "no_answer",
    "rewards": 0,
    "observations": "",
    "finish_reasons": NOT_MADE,
}
"""A sample that could not be made."""


def measured(episode: Episode, config: dict[str, Any]) -> Episode:
    """The episode with every turn that its run's metrics look at.

    An oracle run has one further turn, where the episode was stopped, a forced run has all.

    >>> config = {"max_turns": 2, "num_of_samples": [3, 1], "feedback": "none"}
    >>> blocked = Episode(7, "1+1?", "2", error={"kind": "context_overflow", "final": True})
    >>> [turn.verdicts for turn in measured(blocked, config).turns]
    [['no_answer', 'no_answer', 'no_answer'], ['no_answer']]
    >>> filtered = sketch("w7,r5 r5")[0]
    >>> [turn.verdicts for turn in measured(filtered, config).turns]
    [['wrong', 'right', 'no_answer'], ['right']]
    >>> filtered.turns[0].filtered = [0]
    >>> [turn.verdicts for turn in measured(filtered, config).turns]
    [['no_answer', 'wrong', 'right'], ['right']]
    """
    sizes = config["num_of_samples"]
    turns = [_filled(turn, sizes[t]) for t, turn in enumerate(episode.turns)]
    if episode.error is None:
        return replace(episode, turns=turns)
    end = config["max_turns"] if is_forced(config["feedback"]) else len(turns) + 1
    turns += [_blank(sizes[t]) for t in range(len(turns), end)]
    return Episode(episode.task_id, episode.query, episode.answer, turns)


def _filled(turn: Turn, samples: int) -> Turn:
    """The turn with blanks for the samples that it lacks; one that only repeats has no others."""
    made = len(turn.actions)
    if turn.kept or made >= samples:
        return turn
    order = [*range(made)]
    # A run from before the places were recorded has the blanks at the end.
    for place in turn.filtered or range(made, samples):
        order.insert(place, -1)
    lists: dict[str, Any] = {
        key: [blank if i < 0 else getattr(turn, key)[i] for i in order]
        for key, blank in BLANK.items()
    }
    return replace(turn, **lists, chosen=order.index(turn.chosen))


def _blank(samples: int) -> Turn:
    lists: dict[str, Any] = {key: [blank] * samples for key, blank in BLANK.items()}
    return Turn(**lists, model="", usage={})
