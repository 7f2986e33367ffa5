"""What a conversion made of its episodes: counts, weights, tokens; as JSON and as a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rise.dataset import Row
from rise.statistics import effective_sample_size


def describe_rows(rows: Sequence[Row], dropped: Counter[str], episodes: int) -> dict[str, Any]:
    """Counts and weights of a data set.

    Args:
        rows: what was kept, at least one row.
        dropped: how many attempts were dropped for which reason.
        episodes: how many episodes were read.
    """
    weights = [row.weight for row in rows]
    return {
        "episodes": episodes,
        "attempts": len(rows) + sum(dropped.values()),
        "rows": len(rows),
        "dropped": dict(sorted(dropped.items())),
        "rows_by_turn": _counts(row.turn for row in rows),
        "rows_by_reward": _counts(row.reward for row in rows),
        "weights": {
            "min": min(weights),
            "mean": sum(weights) / len(weights),
            "max": max(weights),
            "negative": sum(weight < 0 for weight in weights),
            "effective_sample_size": effective_sample_size(weights),
        },
    }


def count_tokens(rows: Sequence[Row], model_path: str | None) -> dict[str, Any]:
    """Tokens of the prompts (not trained) and of the answers (trained), as the trainer sees them.

    Args:
        rows: at least one row.
        model_path: a checkpoint's directory or a hub id; None counts nothing.

    Returns:
        {"prompt", "answer", "row"}, each {"mean", "max", "total"}; or {"not counted": the reason},
        because a tokenizer that cannot be loaded does not spoil a conversion.
    """
    if model_path is None:
        return {"not counted": "no --model_path"}
    from transformers import AutoTokenizer

    from fastchat.conversation import ChatTemplate

    try:
        template = ChatTemplate(AutoTokenizer.from_pretrained(model_path.removeprefix("hf:")))
        lengths = [[len(ids) for ids in template.encode_example(row.messages)] for row in rows]
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return {"not counted": f"the tokenizer of {model_path} cannot be used ({reason})"}
    parts = dict(zip(("prompt", "answer"), zip(*lengths, strict=True), strict=True))
    parts["row"] = tuple(map(sum, lengths))
    return {
        name: {"mean": sum(part) / len(part), "max": max(part), "total": sum(part)}
        for name, part in parts.items()
    }


def format_report(report: dict[str, Any]) -> str:
    """The report in five lines."""
    weights = report["weights"]
    settings = report["settings"]
    lines = [
        f"{report['episodes']} episodes, {report['attempts']} attempts -> {report['rows']} rows",
        f"rows: {_listed('turn ', report['rows_by_turn'])}; "
        f"{_listed('reward ', report['rows_by_reward'])}",
        f"dropped: {_listed('', report['dropped']) or 'nothing'}",
        f"weights ({settings['weighting']}, tau {settings['temperature']}): "
        f"{weights['min']:.3g} to {weights['max']:.3g}, mean {weights['mean']:.3g}; effective "
        f"sample size {weights['effective_sample_size']:.0f} of {report['rows']}",
        f"tokens: {_tokens(report['tokens'])}",
    ]
    return "\n".join(lines)


def _counts(values: Any) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _listed(prefix: str, counts: dict[str, int]) -> str:
    return ", ".join(f"{prefix}{name}: {count}" for name, count in counts.items())


def _tokens(tokens: dict[str, Any]) -> str:
    if "not counted" in tokens:
        return f"not counted: {tokens['not counted']}"
    prompt, answer, row = (tokens[name] for name in ("prompt", "answer", "row"))
    return (
        f"prompt {prompt['mean']:.0f} on average, answer {answer['mean']:.0f}; longest row "
        f"{row['max']}; {answer['total']} trained of {row['total']}"
    )
