"""Problems whose prompt never fits the model's context, in the numbers.

Such an episode ends with a final error: it is not owed and is never data. Metrics must not drop it,
since the longest problems are hard ones and their loss would look like a gain. So for metrics alone
the attempts that could not be made stand there as attempts without an answer: not right at that
turn, no vote, and in every denominator (n stays the number of problems).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rise.episode import Episode, Turn
from rise.feedback import is_forced
from rise.rows import episodes_at, finished

CUT_OFF = "overflow"
"""Finish reason of an attempt that could not be made: neither stop nor length."""


def measured(episode: Episode, config: dict[str, Any]) -> Episode:
    """The episode with every turn that its run's metrics look at.

    >>> config = {"max_turns": 2, "num_of_samples": [3, 1], "feedback": "none"}
    >>> blocked = Episode(7, "1+1?", "2", error={"kind": "context_overflow", "final": True})
    >>> [turn.verdicts for turn in measured(blocked, config).turns]
    [['no_answer', 'no_answer', 'no_answer'], ['no_answer']]

    Args:
        episode: one that is not owed; without an error it is returned as it is.
        config: of the run: max_turns, num_of_samples and feedback. An oracle run has one further
            turn, where the episode was stopped, a forced run has all of them.
    """
    if episode.error is None:
        return episode
    played = len(episode.turns)
    end = config["max_turns"] if is_forced(config["feedback"]) else played + 1
    missing = [_blank(t, config["num_of_samples"][t]) for t in range(played, end)]
    return Episode(episode.task_id, episode.query, episode.answer, [*episode.turns, *missing])


def measured_episodes(path: Path, config: dict[str, Any]) -> list[Episode]:
    """The finished episodes of a run directory by task id, each as `measured` shows it."""
    offsets = finished(path / "rows.jsonl")
    ordered = (offsets[task_id] for task_id in sorted(offsets))
    return [measured(episode, config) for episode in episodes_at(path / "rows.jsonl", ordered)]


def _blank(t: int, samples: int) -> Turn:
    return Turn(
        # A sign of its own for each turn: two such attempts are no copies of each other.
        actions=[chr(ord("\u2460") + t)] * samples,
        answers=[None] * samples,
        verdicts=["no_answer"] * samples,
        rewards=[0] * samples,
        observations=[""] * samples,
        finish_reasons=[CUT_OFF] * samples,
        model="",
        usage={},
    )
