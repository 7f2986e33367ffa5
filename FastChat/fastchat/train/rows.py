"""Fine-tuning rows -> the answers to train on, with everything in a row checked.

A row is `{"id", "conversations": [{"from", "value", "loss"}, ...], "reward", "weight", "task_id",
"turn"}`, as workflow_convert.py writes it. The field `loss` of a gpt turn is the weight of that
answer (the published name); it is called weight from here on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastchat.conversation import Message, messages_from_sharegpt
from fastchat.train.row_file import Place, read_rows

ROW_KEYS = {"id", "conversations", "reward", "weight", "task_id", "turn", "opening"}
TURN_KEYS = {"from", "value", "loss"}


@dataclass(frozen=True, slots=True)
class Target:
    """One answer to train on, in its context."""

    row: str
    """The row's id, for messages."""
    messages: list[Message]
    """The context and, last, the answer."""
    opening: int
    """Number of leading messages that are never cut: instruction, worked example, question."""
    weight: float
    """Factor of this example's loss; may be zero or negative (centered weights)."""
    reward: float | None
    """The environment's reward for the answer, used for the log only; None if unknown."""


def read_targets(path: str | Path) -> Iterator[tuple[Place, list[Target]]]:
    """The answers to train on of every row of a fine-tuning file (none for some rows).

    Raises:
        ValueError: the file is no JSON or no list of rows, or a row is malformed; the message
            names the row.
    """
    for position, (place, row) in enumerate(read_rows(path)):
        try:
            yield place, targets_of(row, position)
        except ValueError as error:
            raise ValueError(f"{path}, row {position}: {error}") from error


def targets_of(row: dict[str, Any], position: int = 0) -> list[Target]:
    """The answers of a row that are trained, each with the messages before it.

    Every gpt turn whose `loss` is not zero is one. If all are zero and the row ends in an answer,
    that answer is an example of weight zero: it counts in the mean over examples. A row without
    any `loss` is plain supervised data: every gpt turn is trained with weight 1.

    Args:
        row: one row of a fine-tuning file.
        position: its place in the file, its name if it has no id.

    Raises:
        ValueError: a key is unknown, or a turn or a number is malformed.
    """
    _check_keys(row)
    messages = messages_from_sharegpt(row["conversations"])
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    weights = _weights(row["conversations"], answers)
    trained = [i for i in answers if weights[i]]
    if not trained and answers and answers[-1] == len(messages) - 1:
        trained = answers[-1:]
    _check_stated_weight(row, [weights[i] for i in trained])
    name = str(row.get("id", f"row {position}"))
    reward = None if row.get("reward") is None else _number(row["reward"], "reward")
    opening = _opening(row, messages)
    return [Target(name, messages[: i + 1], min(opening, i), weights[i], reward) for i in trained]


def _check_keys(row: Any) -> None:
    if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
        raise ValueError(
            'expected {"conversations": [{"from", "value", "loss"}, ...], ...}, got '
            f"{json.dumps(row)[:80]}"
        )
    for turn in row["conversations"]:
        if not isinstance(turn, dict):
            raise ValueError(f"a turn must be an object, got {json.dumps(turn)[:80]}")
    unknown = sorted(row.keys() - ROW_KEYS)
    unknown += sorted({key for turn in row["conversations"] for key in turn} - TURN_KEYS)
    if unknown:
        raise ValueError(
            f"unknown field {unknown[0]!r}; a row has {', '.join(sorted(ROW_KEYS))} and a turn "
            f"{', '.join(sorted(TURN_KEYS))}"
        )


def _weights(turns: Sequence[dict[str, Any]], answers: Sequence[int]) -> dict[int, float]:
    """The weight of each answer, by its position in the conversation."""
    if not any("loss" in turn for turn in turns):
        return dict.fromkeys(answers, 1.0)
    weights = {i: _number(turn.get("loss") or 0, "loss") for i, turn in enumerate(turns)}
    for i in weights.keys() - set(answers):
        if weights[i]:
            raise ValueError(
                f"turn {i} has loss {weights[i]} but is no gpt turn: only answers are trained"
            )
    return {i: weights[i] for i in answers}


def _check_stated_weight(row: dict[str, Any], used: list[float]) -> None:
    stated = row.get("weight")
    if stated is None or len(used) != 1:
        return
    if not math.isclose(_number(stated, "weight"), used[0], rel_tol=1e-6, abs_tol=1e-9):
        raise ValueError(
            f"its weight {stated} is not the loss {used[0]} of its answer; they are the same "
            "number, so convert the log again"
        )


def _opening(row: dict[str, Any], messages: Sequence[Message]) -> int:
    """See `Target.opening`: as stated by the row, else up to the first user message."""
    if row.get("opening") is not None:
        return int(_number(row["opening"], "opening"))
    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    return users[0] + 1 if users else 0


def _number(value: Any, name: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)
