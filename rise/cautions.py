"""When a run's numbers should not be believed yet: what to look at before publishing them."""

from __future__ import annotations

from typing import Any

LOWEST, HIGHEST = 0.05, 0.95
"""Accuracies between which a method can show anything."""
MOST_UNCLEAR = 0.2
"""Share of a model's checks without a verdict above which its revisions are not its own choice."""
MOST_CUT = 0.05
"""Share of cut answers above which the limit of new tokens is part of what is measured."""


def cautions(metrics: dict[str, Any]) -> list[str]:
    """One sentence per doubt about a run, with the remedy; empty where there is none.

    >>> rate = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 96}
    >>> fine = {"m1@t1": rate, "length": [rate | {"value": 0.01}, None]}
    >>> cautions(fine)
    []
    >>> cautions(fine | {"m1@t1": rate | {"value": 0.97}})
    ['m1@t1 is 97.0 %, above 95 %: there is hardly a mistake to mend; take harder problems']

    Args:
        metrics: what `rise.metrics.summarise` returns.
    """
    found = []
    accuracy = metrics["m1@t1"]["value"]
    if accuracy < LOWEST:
        found.append(
            f"m1@t1 is {100 * accuracy:.1f} %, below {100 * LOWEST:.0f} %: read a few answers, the "
            "prompt, the chat template or the answer format may be wrong"
        )
    if accuracy > HIGHEST:
        found.append(
            f"m1@t1 is {100 * accuracy:.1f} %, above {100 * HIGHEST:.0f} %: there is hardly a "
            "mistake to mend; take harder problems"
        )
    shares = [rate["value"] if rate else 0.0 for rate in metrics["length"]]
    if (most := max(shares)) > MOST_CUT:
        found.append(
            f"{100 * most:.1f} % of the answers of turn {1 + shares.index(most)} were cut at the "
            f"limit of new tokens, more than {100 * MOST_CUT:.0f} %: raise --max_new_tokens"
        )
    for turn, rate in enumerate(metrics.get("check", {}).get("unclear", []), start=1):
        if rate and rate["value"] > MOST_UNCLEAR:
            found.append(
                f"{100 * rate['value']:.1f} % of the checks of turn {turn} say neither right nor "
                "wrong, and their answers are revised: read some, they are in rows.jsonl"
            )
            break
    return found
