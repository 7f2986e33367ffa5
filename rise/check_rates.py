"""What a model's checks of its own answers are worth, and how often it revises.

A check calls an answer wrong unless it says that it is right: an answer about which nothing could
be read is revised too. Turns are counted from 1; the answers of the last turn are not checked, nor
is an answer that stands checked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rise.episodes.episode import Episode
from rise.statistics import bootstrap_mean, wilson


def check_rates(episodes: Sequence[Episode], max_turns: int) -> dict[str, Any]:
    """{"check", "revisions"}, each rate {"value", "low", "high", "n"}.

    "check" has lists over the turns 1 to K - 1 (None where n would be 0): "precision", "recall",
    "unclear" (see `precision`, `recall`, `unclear`). "revisions" is `revisions` on average over the
    problems, of which the total is n times the value.
    """
    measures = {"precision": precision, "recall": recall, "unclear": unclear}
    found: dict[str, list[Any]] = {}
    for name, measure in measures.items():
        values = [measure(episodes, turn) for turn in range(1, max_turns)]
        found[name] = [wilson(hits).to_dict() if hits else None for hits in values]
    return {"check": found, "revisions": bootstrap_mean(revisions(episodes)).to_dict()}


def precision(episodes: Sequence[Episode], turn: int) -> list[bool]:
    """Of the answers of a turn that the check calls wrong: is the answer not right?

    >>> run = checked(("w7", "wrong"), ("r5", "wrong"), ("w7", "right"), ("-", "unclear"))
    >>> precision(run, 1)
    [True, False, True]
    """
    return [not right for says, right in _checks(episodes, turn) if says != "right"]


def recall(episodes: Sequence[Episode], turn: int) -> list[bool]:
    """Of the answers of a turn that were checked and are not right: does the check call it wrong?

    >>> run = checked(("w7", "wrong"), ("r5", "wrong"), ("w7", "right"), ("-", "unclear"))
    >>> recall(run, 1)
    [True, False, True]
    """
    return [says != "right" for says, right in _checks(episodes, turn) if not right]


def unclear(episodes: Sequence[Episode], turn: int) -> list[bool]:
    """Of the answers of a turn that were checked: did the check say neither right nor wrong?

    >>> unclear(checked(("w7", "wrong"), ("r5", "unclear")), 1)
    [False, True]
    """
    return [says == "unclear" for says, _ in _checks(episodes, turn)]


def revisions(episodes: Sequence[Episode]) -> list[int]:
    """How many answers each problem got after its first one; those that stand are none.

    >>> from rise.episodes.shorthand import sketch
    >>> run = sketch("w7 r5 r5", "r5 r5 r5")
    >>> run[0].turns[2].kept = True
    >>> revisions(run)
    [1, 2]
    """
    return [sum(not turn.kept for turn in episode.turns[1:]) for episode in episodes]


def checked(*answers: tuple[str, str]) -> list[Episode]:
    """Episodes for examples: the word of the first turn, as in `rise.episodes.shorthand`, and what is said."""
    from rise.episodes.shorthand import sketch

    episodes = sketch(*(word for word, _ in answers))
    for episode, (_, says) in zip(episodes, answers, strict=True):
        episode.turns[0].check = {"says": says}
    return episodes


def _checks(episodes: Sequence[Episode], turn: int) -> list[tuple[str, bool]]:
    """(what the check said, whether the answer is right) of the problems checked at this turn."""
    turns = (episode.turns[turn - 1] for episode in episodes if len(episode.turns) >= turn)
    return [(t.check["says"], t.verdict == "right") for t in turns if t.check]
