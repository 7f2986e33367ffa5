"""What a conversion made of its episodes: counts, weights, tokens; as JSON and as a few lines."""

from array import array
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

from rise.dataset.rules import Row
from rise.metrics.statistics import effective_sample_size


class RowCounts:
    """Counts and weights of the rows of a data set; 8 bytes per row."""

    def __init__(self) -> None:
        self.episodes = 0
        self.attempts: int | None = None
        """Where an attempt may be in several rows: how many there were."""
        self.dropped: Counter[str] = Counter()
        """How many attempts were dropped for which reason."""
        self.weights = array("d")
        self.recorded = 0
        """Rows whose answer has the tokens that were sampled."""
        self.truncated = 0
        """Rows whose answer was cut at the limit of new tokens."""
        self._turns: Counter[int] = Counter()
        self._rewards: Counter[int] = Counter()

    def add(self, row: Row) -> None:
        self.weights.append(row.weight)
        self.recorded += row.token_ids is not None
        self.truncated += row.is_cut
        self._turns[row.turn] += 1
        self._rewards[row.reward] += 1

    def why_empty(self) -> str:
        if self.episodes and self.attempts is not None:
            return (
                f"No pair in {self.episodes} episodes: no question has both a right answer and a "
                "wrong one; sample more per turn, or pool the logs of several runs"
            )
        if not self.episodes:
            return "The logs hold no finished episode: go on with the run that writes them"
        return (
            f"No row is left of {self.episodes} episodes (dropped: {_listed('', self.dropped)}): "
            "keep more with --criteria all, without --only_success"
        )

    def to_dict(self) -> dict[str, Any]:
        weights, attempts = self.weights, self.attempts
        if attempts is None:
            attempts = len(weights) + sum(self.dropped.values())
        return {
            "episodes": self.episodes,
            "attempts": attempts,
            "rows": len(weights),
            "recorded_ids": self.recorded,
            "tokenized": len(weights) - self.recorded,
            "truncated": self.truncated,
            "dropped": dict(sorted(self.dropped.items())),
            "rows_by_turn": _listing(self._turns),
            "rows_by_reward": _listing(self._rewards),
            "weights": {
                "min": min(weights),
                "mean": fmean(weights),
                "max": max(weights),
                "negative": sum(weight < 0 for weight in weights),
                "effective_sample_size": effective_sample_size(weights),
            },
        }


class TokenCounts:
    """Tokens of the prompts (not trained) and of the answers (trained), as the trainer sees them.

    Nothing is counted where the tokenizer cannot be loaded: that does not spoil a conversion.
    """

    def __init__(self, model_path: str | None):
        self._reason = None if model_path else "no --model_path"
        self._model_path = model_path
        self.answers = array("L")
        """Tokens of the answer of each row, where they are counted."""
        self._template: Any = None
        self._parts: dict[str, list[int]] = {}
        self._rows = 0
        self._foreign = 0

    def add(self, row: Row) -> None:
        if self._reason:
            return
        try:
            encoded = self._load().encode(row.messages, row.answer)
            prompt, answer = len(encoded.prompt), len(encoded.action)
        except (OSError, ValueError, KeyError, ImportError) as error:
            cause, *more = str(error).strip().splitlines() or [type(error).__name__]
            if more and cause.rstrip().endswith(":"):  # cut: the reasons are a list below it
                cause = "it is no checkpoint with a tokenizer"
            self._reason = f"the tokenizer of {self._model_path} cannot be used ({cause})"
            return
        self._rows += 1
        self._foreign += encoded.source == "other_tokenizer"
        self.answers.append(answer)
        for name, length in (("prompt", prompt), ("answer", answer), ("row", prompt + answer)):
            total, most = self._parts.get(name, (0, 0))
            self._parts[name] = [total + length, max(most, length)]

    def to_dict(self) -> dict[str, Any]:
        """{"prompt", "answer", "row"}, each {"mean", "max", "total"}; or {"not counted": why}."""
        if self._reason:
            return {"not counted": self._reason}
        parts: dict[str, Any] = {
            name: {"mean": total / self._rows, "max": most, "total": total}
            for name, (total, most) in self._parts.items()
        }
        return parts | ({"of_another_tokenizer": self._foreign} if self._foreign else {})

    def _load(self) -> Any:
        if self._template is None:
            from transformers import AutoTokenizer

            from fastchat.conversation import ChatTemplate
            from fastchat.model import hub

            # A folder with a tokenizer alone will do.
            path = (self._model_path or "").removeprefix("hf:")
            # The hub's client would try for a minute and more.
            if not Path(path).is_dir() and (problem := hub.problem_with(path)):
                raise ValueError(problem)
            self._template = ChatTemplate(AutoTokenizer.from_pretrained(path))
        return self._template


def format_report(report: dict[str, Any]) -> str:
    weights = report["weights"]
    settings = report["settings"]
    lines = [
        f"{report['episodes']} episodes, {report['attempts']} attempts -> {report['rows']} rows",
        f"rows: {_listed('turn ', report['rows_by_turn'])}; "
        f"{_listed('reward ', report['rows_by_reward'])}",
        f"dropped: {_listed('', report['dropped']) or 'nothing'}",
        f"answers: {report['recorded_ids']} with the tokens that were sampled, "
        f"{report['tokenized']} as text; {report['truncated']} cut at the limit of new tokens",
        f"weights ({settings['weighting']}, tau {settings['temperature']}): "
        f"{weights['min']:.3g} to {weights['max']:.3g}, mean {weights['mean']:.3g}; effective "
        f"sample size {weights['effective_sample_size']:.0f} of {report['rows']}",
        f"tokens: {_tokens(report['tokens'])}",
        f"prompts: {in_words(report['prompt_styles'])}",
    ]
    if foreign := report["tokens"].get("of_another_tokenizer"):
        lines.append(
            f"NOTICE: the recorded tokens of {foreign} answers are another tokenizer's than that "
            f"of {settings['model_path']}: it is trained on their text"
        )
    if matched := report.get("match_tokens"):
        lines.append(
            f"repeated: {matched['rows']} rows with {matched['total']} trained tokens, for a "
            f"budget of {matched['budget']}; the counts above are those of one pass"
        )
    return "\n".join(lines)


def in_words(styles: dict[str, str]) -> str:
    """The prompt style of the logs, by itself where they share one."""
    if len({*styles.values()}) == 1:
        return next(iter(styles.values()))
    return ", ".join(f"{style} ({log})" for log, style in styles.items())


def _listing(counts: Counter[int]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(counts.items()) if count}


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
