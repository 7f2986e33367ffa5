"""Attempts that nobody could make, in the numbers.

An episode whose prompt never fits the model's context ends with a final error: it is not owed and
is never data. Metrics must not drop it, since the longest problems are hard ones and their loss
would look like a gain. So for metrics alone the attempts that could not be made stand there as
attempts without an answer: not right at that turn, no vote, and in every denominator (n stays the
number of problems). The same holds for samples of a turn that a server filtered: without them one
problem with fewer samples would lower the K of mK@t1 for all.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rise.episodes.episode import PER_SAMPLE, Episode, Turn
from rise.episodes.feedback import is_forced
from rise.episodes.rows import episodes_at, finished

NOT_MADE = "none"
"""Finish reason of an attempt that could not be made: neither stop nor length."""


def measured(episode: Episode, config: dict[str, Any]) -> Episode:
    """The episode with every turn that its run's metrics look at.

    >>> config = {"max_turns": 2, "num_of_samples": [3, 1], "feedback": "none"}
    >>> blocked = Episode(7, "1+1?", "2", error={"kind": "context_overflow", "final": True})
    >>> [turn.verdicts for turn in measured(blocked, config).turns]
    [['no_answer', 'no_answer', 'no_answer'], ['no_answer']]
    >>> from rise.episodes.shorthand import sketch
    >>> filtered = sketch("w7,r5 r5")[0]
    >>> [turn.verdicts for turn in measured(filtered, config).turns]
    [['wrong', 'right', 'no_answer'], ['right']]
    >>> filtered.turns[0].filtered = [0]
    >>> [turn.verdicts for turn in measured(filtered, config).turns]
    [['no_answer', 'wrong', 'right'], ['right']]

    Args:
        episode: one that is not owed.
        config: of the run: max_turns, num_of_samples and feedback. An oracle run has one further
            turn, where the episode was stopped, a forced run has all of them.
    """
    sizes = config["num_of_samples"]
    turns = [_filled(turn, t, sizes[t]) for t, turn in enumerate(episode.turns)]
    if episode.error is None:
        return replace(episode, turns=turns)
    end = config["max_turns"] if is_forced(config["feedback"]) else len(turns) + 1
    turns += [_blank(t, sizes[t]) for t in range(len(turns), end)]
    return Episode(episode.task_id, episode.query, episode.answer, turns)


def measured_episodes(path: Path, config: dict[str, Any]) -> list[Episode]:
    """The finished episodes of a run directory by task id, each as `measured` shows it."""
    offsets = finished(path / "rows.jsonl")
    ordered = (offsets[task_id] for task_id in sorted(offsets))
    return [measured(episode, config) for episode in episodes_at(path / "rows.jsonl", ordered)]


def _filled(turn: Turn, t: int, samples: int) -> Turn:
    """The turn with blanks for the samples that it lacks; one that only repeats has no others."""
    made = len(turn.actions)
    if turn.kept or made >= samples:
        return turn
    # A run from before the places were recorded has them at the end.
    blank, blanks = _blank(t, 1), turn.filtered or range(made, samples)
    order = [*range(made)]
    for place in blanks:
        order.insert(place, -1)
    lists = {
        key: [(getattr(blank, key)[0] if i < 0 else getattr(turn, key)[i]) for i in order]
        for key in PER_SAMPLE
    }
    return replace(turn, **lists, chosen=order.index(turn.chosen))


def _blank(t: int, samples: int) -> Turn:
    return Turn(
        # A sign of its own for each turn: two such attempts are no copies of each other.
        actions=[chr(ord("\u2460") + t)] * samples,
        answers=[None] * samples,
        verdicts=["no_answer"] * samples,
        rewards=[0] * samples,
        observations=[""] * samples,
        finish_reasons=[NOT_MADE] * samples,
        model="",
        usage={},
    )
