"""Fine-tuning rows -> the answers to train on, with everything in a row checked.

A row is `{"id", "conversations": [{"from", "value", "loss"}, ...], "reward", "weight", "task_id",
"turn"}`, as workflow_convert.py writes it. The field `loss` of a gpt turn is the weight of that
answer (the published name); it is called weight from here on.

A JSON list on disk, read row by row: millions of rows are never in memory as a whole.
"""

from __future__ import annotations

import json
import math
import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from fastchat.conversation import Message, messages_from_sharegpt

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


_DECODER = json.JSONDecoder()
_PIECE = 1 << 16
"""Characters that are read at once, at least."""
_SPACE = " \t\r\n"


class Place(NamedTuple):
    """Where a row stands in its file."""

    start: int
    """Its first byte."""
    size: int
    """In bytes."""


def read_rows(path: str | Path) -> Iterator[tuple[Place, Any]]:
    """The rows of a file that holds a JSON list, with their places.

    Raises:
        ValueError: the file is no JSON, or no list with something in it.
    """
    remedy = "write it with workflow_convert.py"
    # Without the translation of line ends, which would shift the places.
    with open(path, encoding="utf-8", newline="") as file:
        source = _Source(file)
        try:
            if source.peek() != "[" or not source.take() or source.peek() == "]":
                raise ValueError(f"{path} {_instead_of_a_list(source)}; {remedy}")
            mark = ","
            while mark == ",":
                source.peek()
                start = source.byte
                row = source.value()
                yield Place(start, source.byte - start), row
                if (mark := source.peek()) not in (",", "]"):
                    raise source.error("Expecting ',' or ']'")
                source.take()
            if source.peek():
                raise source.error("Extra data")
        except json.JSONDecodeError as error:
            byte = source.byte + len(error.doc[: error.pos].encode())
            raise ValueError(f"{path} is not JSON: {error.msg} at byte {byte}; {remedy}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}; {remedy}") from error


def _instead_of_a_list(source: _Source) -> str:
    """What a file is that holds no list of rows: JSON lines for other trainers are recognised."""
    row = source.value() if source.peek() == "{" else {}
    if {"chosen", "rejected"} <= row.keys():
        return (
            "holds preference pairs (--to dpo), which train_mem.py cannot train on: TRL's "
            "DPOTrainer does (README, Baselines). For data of train_mem.py leave out --to dpo"
        )
    if "messages" in row:
        return "holds rows for other trainers (--format messages): use --format fastchat"
    return "must hold a list of rows"


class RowReader:
    """Reads single rows again; the file stays open, so that replacing it changes nothing."""

    def __init__(self, path: str | Path):
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __call__(self, place: Place) -> Any:
        """The row at a place that `read_rows` gave."""
        # Unlike seek and read this is safe in processes that share the open file.
        return json.loads(os.pread(self._file, place.size, place.start))


class _Source:
    """The rest of a file of JSON; more of it is read when it is needed."""

    def __init__(self, file: TextIO):
        self.byte = 0
        """The place of the rest in the file."""
        self._file = file
        self._text = ""

    def peek(self) -> str:
        """The next character that is no white space, "" at the end of the file."""
        while True:
            self._drop(len(self._text) - len(self._text.lstrip(_SPACE)))
            if self._text or not self._more():
                return self._text[:1]

    def take(self) -> str:
        """As `peek`, and go past it."""
        found = self.peek()
        self._drop(len(found))
        return found

    def value(self) -> Any:
        """The value that begins here, and go past it."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text)
            except json.JSONDecodeError:
                if not self._more():
                    raise
            else:
                # A number that ends where the text does may go on.
                if end == len(self._text) and self._more():
                    continue
                self._drop(end)
                return value

    def error(self, message: str) -> json.JSONDecodeError:
        """What to raise if something else stands here."""
        return json.JSONDecodeError(message, self._text, 0)

    def _more(self) -> bool:
        # As much again: a long row is then not decoded from its beginning too often.
        piece = self._file.read(max(_PIECE, len(self._text)))
        self._text += piece
        return bool(piece)

    def _drop(self, count: int) -> None:
        self.byte += len(self._text[:count].encode())
        self._text = self._text[count:]
