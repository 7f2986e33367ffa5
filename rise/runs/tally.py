"""Counts over the episodes of a run, and what its answers cost.

There is no table of prices, since prices change: `--price MODEL=IN,OUT` says what a million tokens
of prompts and of answers cost, in USD. What servers report as usage is counted, also for attempts
that gave no answer. Not known are discounts for cached prompts, and requests that a kill cut off.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rise.episodes.episode import Episode, is_refused
from rise.metrics.cautions import Unread

MILLION = 1_000_000


class Tally:
    """Adds up episodes one by one; `cumulative`: a problem is solved from its first success on."""

    def __init__(
        self,
        max_turns: int,
        *,
        cumulative: bool,
        prices: Mapping[str, Sequence[float]] | None = None,
    ):
        self.max_turns = max_turns
        self.cumulative = cumulative
        self.prices = prices or {}
        self.finished = 0
        self.unanswered = 0
        """Finished episodes that ended with a final error."""
        self.given_up = 0
        """Those of them that were refused in too many calls."""
        self.refused = 0
        """Failed episodes whose error a further try hardly changes."""
        self.errors: Counter[str] = Counter()
        self.last_error = ""
        self.solved = [0] * max_turns
        self.verdicts: list[Counter[str]] = [Counter() for _ in range(max_turns)]
        self.cut = [0] * max_turns
        self.usage: dict[str, Counter[str]] = defaultdict(Counter)
        self.unread = Unread()

    def add(self, episode: Episode) -> None:
        self.add_usage(episode)
        if episode.error:
            self.errors[episode.error["kind"]] += 1
            self.last_error = episode.error["message"]
            if episode.is_owed:
                self.refused += is_refused(episode.error)
                return
            self.unanswered += 1
            self.given_up += episode.is_given_up
        self.finished += 1
        self.unread.add(episode)
        right = [turn.verdict == "right" for turn in episode.turns]
        for t in range(self.max_turns):
            self.solved[t] += any(right[: t + 1]) if self.cumulative else any(right[t : t + 1])
        for t, turn in enumerate(episode.turns):
            self.verdicts[t].update(turn.verdicts)
            self.cut[t] += turn.finish_reasons.count("length")

    def add_earlier(self, episode: Episode) -> None:
        """Count one that an earlier call recorded: what failed there is owed, but was paid for."""
        if episode.is_owed:
            self.add_usage(episode)
        else:
            self.add(episode)

    def add_usage(self, episode: Episode) -> None:
        for turn in episode.turns:
            counts = {"requests": 1, "samples": len(turn.actions)} | turn.usage
            self.usage[turn.model].update(counts)
            if turn.check:
                self.usage[turn.model].update(turn.check["usage"])
        if episode.error and "usage" in episode.error:
            self.usage[episode.error["model"]].update(episode.error["usage"])

    @property
    def completion_tokens(self) -> int:
        return sum(counts["completion_tokens"] for counts in self.usage.values())

    @property
    def cost_usd(self) -> float:
        """USD for the tokens of the models whose price is known."""
        return sum(map(self.cost_of, self.prices))

    def cost_in_words(self) -> str:
        parts = ", ".join(f"{model} {self.cost_of(model):.4f}" for model in self.prices)
        return f"cost: {self.cost_usd:.4f} USD ({parts})"

    def cost_of(self, model: str) -> float:
        counts: Mapping[str, int] = self.usage.get(model, {})
        tokens = [counts.get(name, 0) for name in ("prompt_tokens", "completion_tokens")]
        return sum(p * n for p, n in zip(self.prices[model], tokens, strict=True)) / MILLION

    def summary(self) -> dict[str, Any]:
        """The counts as JSON; lists run over the turns. Rates carry n and a 95 % interval."""
        from rise.metrics.statistics import wilson

        total = self.finished
        graded = [sum(counts.values()) for counts in self.verdicts]
        usage: dict[str, dict[str, float]] = {name: dict(n) for name, n in self.usage.items()}
        for model in usage.keys() & self.prices.keys():
            usage[model]["cost_usd"] = round(self.cost_of(model), 6)
        return {
            "success_by_turn": [
                wilson([True] * n + [False] * (total - n)).to_dict() for n in self.solved if total
            ],
            "verdicts": [dict(counts) for counts in self.verdicts],
            "length_share": [c / g if g else 0.0 for c, g in zip(self.cut, graded, strict=True)],
            "usage": usage,
            "errors": dict(self.errors),
            "unanswered": self.unanswered,
            "given_up": self.given_up,
            **({"cost_usd": round(self.cost_usd, 6)} if self.prices else {}),
        }


def parse_prices(texts: Sequence[str]) -> dict[str, list[float]]:
    """Model -> USD per million tokens of prompts and of answers.

    >>> parse_prices(["gpt-4=30,60"])
    {'gpt-4': [30.0, 60.0]}
    """
    prices = {}
    for text in texts:
        model, _, numbers = text.rpartition("=")
        try:
            price = [float(number) for number in numbers.split(",")]
        except ValueError:
            price = []
        if not model or len(price) != 2 or not all(0 <= p < math.inf for p in price):
            raise ValueError(
                f"--price is {text!r}: give MODEL=IN,OUT, such as gpt-4=30,60, the USD for a "
                "million tokens of prompts and of answers"
            )
        prices[model] = price
    return prices


def check_prices(
    prices: Mapping[str, Any], kinds: Mapping[str, str], max_cost_usd: float | None
) -> None:
    for model in prices:
        if model not in kinds:
            raise ValueError(f"--price names {model!r}: the models are {', '.join(kinds)}")
    if max_cost_usd is None:
        return
    if unknown := [name for name, kind in kinds.items() if kind == "openai" and name not in prices]:
        raise ValueError(
            f"--max_cost_usd needs the price of {', '.join(unknown)}: add --price "
            f"{unknown[0]}=IN,OUT, the USD for a million tokens of prompts and of answers"
        )
    if not prices:
        raise ValueError(
            "--max_cost_usd needs a price: add --price MODEL=IN,OUT, the USD for a million tokens "
            f"of prompts and of answers, for those of {', '.join(kinds)} that cost something"
        )


def exceeded(max_cost_usd: float | None, tally: Tally) -> bool:
    return max_cost_usd is not None and tally.cost_usd >= max_cost_usd
