"""Counts over the episodes of a run, for the progress line and for summary.json."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from rise.episode import Episode


class Tally:
    """Adds up episodes one by one; holds no episode.

    Args:
        max_turns: turns that an episode takes at most.
        cumulative: count a problem as solved from its first success on (episodes that stop at a
            success); otherwise a turn counts by itself.
    """

    def __init__(self, max_turns: int, *, cumulative: bool):
        self.max_turns = max_turns
        self.cumulative = cumulative
        self.finished = 0
        self.errors: Counter[str] = Counter()
        self.last_error = ""
        self.solved = [0] * max_turns
        self.verdicts: list[Counter[str]] = [Counter() for _ in range(max_turns)]
        self.cut = [0] * max_turns
        self.usage: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, episode: Episode) -> None:
        """Count one episode, finished or failed."""
        if episode.error:
            self.errors[episode.error["kind"]] += 1
            self.last_error = episode.error["message"]
            return
        self.finished += 1
        right = [turn.verdict == "right" for turn in episode.turns]
        for t in range(self.max_turns):
            self.solved[t] += any(right[: t + 1]) if self.cumulative else any(right[t : t + 1])
        for t, turn in enumerate(episode.turns):
            self.verdicts[t].update(turn.verdicts)
            self.cut[t] += turn.finish_reasons.count("length")
            self.usage[turn.model].update(requests=1, samples=len(turn.actions), **turn.usage)

    def rates(self) -> dict[str, str]:
        """Solved per turn in percent, for the progress line."""
        total = self.finished
        rates = {f"t{t + 1}": f"{100 * n / total:.1f}%" for t, n in enumerate(self.solved) if total}
        failed = sum(self.errors.values())
        return rates | ({"errors": str(failed)} if failed else {})

    def summary(self) -> dict[str, Any]:
        """The counts as JSON; lists run over the turns. Rates carry n and a 95 % interval."""
        from rise.statistics import wilson

        total = self.finished
        graded = [sum(counts.values()) for counts in self.verdicts]
        return {
            "success_by_turn": [
                wilson([True] * n + [False] * (total - n)).to_dict() for n in self.solved if total
            ],
            "verdicts": [dict(counts) for counts in self.verdicts],
            "length_share": [c / g if g else 0.0 for c, g in zip(self.cut, graded, strict=True)],
            "usage": {model: dict(counts) for model, counts in self.usage.items()},
            "errors": dict(self.errors),
        }
