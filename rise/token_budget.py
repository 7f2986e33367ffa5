"""As many trained tokens as another data set has: two data sets that cost the same training.

A baseline on fewer rows, such as the right answers alone, gets as many passes over its rows as its
budget holds, and of the last pass a random part.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from pathlib import Path

from rise.dataset_file import report_path
from rise.dataset_report import TokenCounts
from rise.row_spill import RowSpill
from rise.trajectory import read_json


def trained_tokens(path: Path, model_path: str | None) -> int:
    """The trained tokens of a data set of workflow_convert.py, as its report has them.

    Args:
        path: the data set.
        model_path: whose tokens are counted for the new one.

    Raises:
        ValueError: if there is no such report, if it counted no tokens, or those of another model.
    """
    report = report_path(path)
    if not report.is_file():
        raise ValueError(
            f"--match_tokens {path}: {report.name} is not beside it; give a file that "
            "workflow_convert.py wrote"
        )
    found = read_json(report)
    counted_with = found.get("settings", {}).get("model_path")
    if model_path is None or "answer" not in found.get("tokens", {}):
        raise ValueError(
            "--match_tokens compares tokens: convert both data sets with --model_path, the "
            "checkpoint that is trained"
        )
    if counted_with != model_path:
        raise ValueError(
            f"--match_tokens {path} was counted with the tokenizer of {counted_with}, "
            f"--model_path is {model_path}: give the same"
        )
    budget = found.get("match_tokens", found["tokens"]["answer"])
    return budget["total"]


def repeated(lengths: Sequence[int], budget: int, seed: int) -> list[int]:
    """Which rows to write so that their lengths add up to the budget, to half a row.

    Args:
        lengths: trained tokens of each row, each above 0.
        budget: the sum to reach.
        seed: of the choice of rows for the last pass.

    Returns:
        Places in `lengths`: all of them as often as the budget holds them all, then some of them;
        at least one.

    >>> repeated([3, 3, 3], 18, seed=0), sorted(repeated([3, 3, 3], 15, seed=0)[:3])
    ([0, 1, 2, 0, 1, 2], [0, 1, 2])
    """
    passes, rest = divmod(budget, sum(lengths))
    places = list(range(len(lengths))) * passes
    last = list(range(len(lengths)))
    random.Random(seed).shuffle(last)
    for place in last:
        if 2 * rest < lengths[place]:
            break
        places.append(place)
        rest -= lengths[place]
    return places or last[:1]


def match_tokens(spill: RowSpill, tokens: TokenCounts, budget: int, seed: int) -> dict[str, int]:
    """Let a spill give its rows so often that the budget is met; returns what the report says.

    Raises:
        ValueError: if the tokens were not counted.
    """
    lengths = tokens.answers
    if len(lengths) != len(spill):
        raise ValueError(f"--match_tokens: {tokens.to_dict()['not counted']}")
    places = repeated(lengths, budget, seed)
    spill.offsets = array("Q", (spill.offsets[place] for place in places))
    total = sum(lengths[place] for place in places)
    return {"budget": budget, "rows": len(places), "total": total}
