"""What the answers cost: prices that the user gives, and the limit at which a run stops.

There is no table of prices here, since prices change: `--price MODEL=IN,OUT` says what a million
tokens of prompts and of answers cost, in USD. Servers bill what they report as usage, also for
attempts that gave no answer, so that is what is counted. Not known are discounts for cached
prompts, and the requests that were in flight when a run was killed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rise.tally import Tally


def parse_prices(texts: Sequence[str]) -> dict[str, list[float]]:
    """Model -> USD per million tokens of prompts and of answers.

    >>> parse_prices(["gpt-4=30,60"])
    {'gpt-4': [30.0, 60.0]}

    Raises:
        ValueError: if a text is not MODEL=IN,OUT with two numbers of 0 or more.
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
    """Refuse a price for nobody, and a limit of the cost where a paid model has no price.

    Args:
        prices: what `parse_prices` returned.
        kinds: the kind of each model; the OpenAI API is paid, other servers are where they have a
            price.
        max_cost_usd: the limit, or None.

    Raises:
        ValueError: naming the model and the argument that helps.
    """
    for model in prices:
        if model not in kinds:
            raise ValueError(f"--price names {model!r}: the models are {', '.join(kinds)}")
    unknown = [name for name, kind in kinds.items() if kind == "openai" and name not in prices]
    if max_cost_usd is not None and unknown:
        raise ValueError(
            f"--max_cost_usd needs the price of {', '.join(unknown)}: add --price "
            f"{unknown[0]}=IN,OUT, the USD for a million tokens of prompts and of answers"
        )
    if max_cost_usd is not None and not prices:
        raise ValueError(
            "--max_cost_usd needs a price: add --price MODEL=IN,OUT, the USD for a million tokens "
            f"of prompts and of answers, for those of {', '.join(kinds)} that cost something"
        )


def within(
    max_cost_usd: float | None, tally: Tally, groups: Iterable[list[int]]
) -> Iterator[list[int]]:
    """The groups of problems, until the recorded episodes have cost the limit.

    What is in flight then is still answered, so that the limit can be exceeded by as many episodes
    as are played at the same time.
    """
    return itertools.takewhile(lambda _: not exceeded(max_cost_usd, tally), groups)


def exceeded(max_cost_usd: float | None, tally: Tally) -> bool:
    """Whether the limit is reached."""
    return max_cost_usd is not None and tally.cost_usd >= max_cost_usd
