"""Fine-tuning rows -> the answers to train on, with everything in a row checked.

A row is `{"id", "conversations": [{"from", "value", "loss"}, ...], "reward", "weight", "task_id",
"turn"}`, as workflow_convert.py writes it. The field `loss` of a gpt turn is the weight of that
answer (the published name); it is called weight from here on. A gpt turn may have `token_ids`, the
tokens that were sampled (`fastchat.conversation.pack_ids`), and `finish_reason`, length where the
limit of new tokens cut it; a row `tokenizer`, whose tokens they are, and `prompt_date`, the day
that its prompt prints. `fastchat.conversation.Answer` says what they mean.

Published FastChat data has no `loss`: every gpt turn is trained with weight 1, as there, and a gpt
turn before the first human one is left out. Fields beside these are read over.

A JSON list or JSON lines, read row by row: millions of rows are never in memory as a whole.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import re
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from fastchat.conversation import Answer, Message, messages_from_sharegpt, unpack_ids
from fastchat.utils import no_json

ROW_KEYS = {"id", "conversations", "reward", "weight", "task_id", "turn", "opening"}
ROW_KEYS |= {"tokenizer", "prompt_date"}
TURN_KEYS = {"from", "value", "loss", "token_ids", "finish_reason"}
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass
class Notes:
    """What was read over in a file."""

    fields: dict[str, None] = field(default_factory=dict)
    """Names that no row or turn has here, in the order in which they came."""
    leading: int = 0

    def __str__(self) -> str:
        parts = []
        if names := [*self.fields][:10] + ["..."] * (len(self.fields) > 10):
            parts.append(f"fields that training does not use are read over ({', '.join(names)})")
        if self.leading:
            parts.append(f"{self.leading} gpt turns before the first human one are left out")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Target:
    """One answer to train on, in its context."""

    row: str
    messages: list[Message]
    opening: int
    """Number of leading messages that are never cut: instruction, worked example, question."""
    weight: float
    """Factor of this example's loss; may be zero or negative (centered weights)."""
    reward: float | None
    """The environment's reward for the answer, used for the log only; None if unknown."""
    answer: Answer


def read_targets(
    path: str | Path, loss_on: str = "all", notes: Notes | None = None
) -> Iterator[tuple[Place, list[Target]]]:
    """The answers to train on of every row of a fine-tuning file (none for some rows)."""
    for position, (place, row) in enumerate(read_rows(path)):
        try:
            yield place, targets_of(row, position, loss_on, notes)
        except ValueError as error:
            raise ValueError(f"{path}, row {position}: {error}") from error


def targets_of(
    row: dict[str, Any], position: int = 0, loss_on: str = "all", notes: Notes | None = None
) -> list[Target]:
    """The answers of a row that are trained, each with the messages before it.

    Every gpt turn whose `loss` is not zero is one, or with `loss_on` last the last such turn. If
    all are zero and the row ends in an answer, that answer is an example of weight zero: it counts
    in the mean over examples. A row without any `loss` is plain supervised data: every gpt turn is
    trained with weight 1. `notes` takes what is read over.
    """
    notes = notes or Notes()
    turns, messages = _turns_of(row, notes)
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    weights = _weights(turns, answers)
    trained = [i for i in answers if weights[i]]
    if not trained and answers and answers[-1] == len(messages) - 1:
        trained = answers[-1:]
    trained = trained[-1:] if loss_on == "last" else trained
    _check_stated_weight(row, [weights[i] for i in trained])
    name = f"row {position}" if row.get("id") is None else str(row["id"])
    reward = None if row.get("reward") is None else _number(row["reward"], "reward")
    opening = _opening(row, messages)
    return [
        Target(name, messages[: i + 1], min(opening, i), weights[i], reward, _answer(row, turns[i]))
        for i in trained
    ]


def _turns_of(row: Any, notes: Notes) -> tuple[list[dict[str, Any]], list[Message]]:
    """The turns of a row from the first human one on, as they are and as messages."""
    if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
        raise ValueError(_instead_of_a_row(row))
    turns = row["conversations"]
    for turn in turns:
        if not isinstance(turn, dict):
            raise ValueError(f"a turn must be an object, got {json.dumps(turn)[:80]}")
    unknown = [key for key in row if key not in ROW_KEYS]
    unknown += [key for turn in turns for key in turn if key not in TURN_KEYS]
    notes.fields.update(dict.fromkeys(unknown))
    messages = messages_from_sharegpt(turns)
    for message in messages:  # half of an emoji is no text: no tokenizer takes it
        message["content"] = _SURROGATES.sub("\ufffd", message["content"])
    start = next((i for i, m in enumerate(messages) if m["role"] != "system"), 0)
    end = start
    while end < len(messages) and messages[end]["role"] == "assistant":
        end += 1
    notes.leading += end - start
    return turns[:start] + turns[end:], messages[:start] + messages[end:]


def _weights(turns: Sequence[dict[str, Any]], answers: Sequence[int]) -> dict[int, float]:
    if all(turn.get("loss") is None for turn in turns):  # null where a table was written as rows
        return dict.fromkeys(answers, 1.0)
    if answers and all(turns[i].get("loss") is None for i in answers):
        raise ValueError("no answer has a loss, but other turns have: leave them all out, or none")
    losses = [turn.get("loss") for turn in turns]
    weights = {i: 0.0 if w is None else _number(w, "loss") for i, w in enumerate(losses)}
    for i in weights.keys() - set(answers):
        if weights[i]:
            raise ValueError(
                f"turn {i} has loss {weights[i]} but is no gpt turn: only answers are trained"
            )
    return {i: weights[i] for i in answers}


def _answer(row: dict[str, Any], turn: dict[str, Any]) -> Answer:
    date, ids = row.get("prompt_date"), turn.get("token_ids")
    try:
        datetime.date.fromisoformat(date or "2000-01-01")
    except (TypeError, ValueError) as error:
        raise ValueError(f"prompt_date must be YYYY-MM-DD, got {date!r:.60}") from error
    return Answer(
        # Other programs may have a field of that name.
        ids=unpack_ids(ids) if isinstance(ids, str) and "tokenizer" in row else None,
        tokenizer=row.get("tokenizer"),
        is_cut=turn.get("finish_reason") == "length",
        date=date,
    )


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
        return max(0, int(_number(row["opening"], "opening")))
    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    return users[0] + 1 if users else 0


def _number(value: Any, name: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Compared and not asked by isfinite, for which a whole number can be too large.
    if not is_number or not -FLOAT32_MAX <= value <= FLOAT32_MAX:
        raise ValueError(f"{name} must be a finite number of 32 bits, got {value!r:.80}")
    return float(value)


_DECODER = json.JSONDecoder()
FLOAT32_MAX = 3.4e38
"""Losses are computed in float32."""
_PIECE = 1 << 16
"""Characters that are read at once, at least."""
_SPACE = " \t\r\n"


class Place(NamedTuple):
    """Where a row stands in its file."""

    start: int
    size: int


def read_rows(path: str | Path) -> Iterator[tuple[Place, Any]]:
    """The rows of a file that holds a JSON list or JSON lines, with their places."""
    remedy, row = "write it with workflow_convert.py", 0
    if other := no_json(Path(path)):
        raise ValueError(f"{path} is {other}")
    # Without the translation of line ends, which would shift the places.
    with open(path, encoding="utf-8", newline="") as file:
        source = _Source(file)
        try:
            if source.peek() == "\ufeff":  # as editors on Windows begin a file
                source.take()
            lines = source.peek() == "{"
            if not lines and (source.peek() != "[" or not source.take() or source.peek() == "]"):
                list_or_lines = "must hold a JSON list of rows, or a row per line"
                what = "is empty" if source.peek() in ("", "]") else list_or_lines
                raise ValueError(f"{path} {what}; {remedy}")
            for found in source.lines() if lines else source.elements():
                yield found
                row += 1
        except json.JSONDecodeError as error:
            byte = source.byte + len(error.doc[: error.pos].encode())
            raise ValueError(
                f"{path}, row {row}, is not JSON: {error.msg} at byte {byte}; {remedy}"
            ) from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}; save it as UTF-8") from error
        except RecursionError as error:
            raise ValueError(f"{path}, row {row}, is nested too deeply; {remedy}") from error


def _instead_of_a_row(row: Any) -> str:
    """What something is that is no row, and what to do with it."""
    keys = row.keys() if isinstance(row, dict) else set()
    if {"chosen", "rejected"} <= keys:
        return (
            "preference pairs (--to dpo) are no data of train_mem.py: TRL's DPOTrainer trains on "
            "them (docs/baselines.md); else leave out --to dpo"
        )
    records = [row, *row.values()] if keys else []
    if any(isinstance(record, dict) and "turn_history" in record for record in records):
        return "this is the log of a run, not yet converted; write rows with workflow_convert.py"
    if {"question", "answer"} <= keys or {"problem", "solution"} <= keys:
        return (
            "this is a problem and no attempt at it: workflow_gen.py makes attempts, "
            "workflow_convert.py makes rows of them"
        )
    if {"messages", "opening"} <= keys:
        return "these are rows for other trainers (--format messages): use --format fastchat"
    remedy = ""
    if "messages" in keys:
        remedy = "; rename messages to conversations, role to from and content to value"
    elif keys and "conversations" not in keys:
        remedy = "; write what is asked as a human turn and what is to be trained as a gpt turn"
    return (
        'a row must be {"conversations": [{"from": "human" | "gpt" | "system", "value": "text"}, '
        f"...]}}, got {json.dumps(row)[:80]}{remedy}"
    )


class RowReader:
    """Reads single rows again; the file stays open, so that replacing it changes nothing."""

    def __init__(self, path: str | Path):
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __call__(self, place: Place) -> Any:
        # Unlike seek and read this is safe in processes that share the open file.
        return json.loads(os.pread(self._file, place.size, place.start))


class _Source:
    """The rest of a file of JSON; more of it is read when it is needed."""

    def __init__(self, file: TextIO):
        self.byte = 0
        self._file = file
        self._text = ""

    def peek(self) -> str:
        """The next character that is no white space, "" at the end of the file."""
        while True:
            self._drop(len(self._text) - len(self._text.lstrip(_SPACE)))
            if self._text or not self._more():
                return self._text[:1]

    def take(self) -> str:
        found = self.peek()
        self._drop(len(found))
        return found

    def lines(self) -> Iterator[tuple[Place, Any]]:
        while self.peek():
            yield self._value()

    def elements(self) -> Iterator[tuple[Place, Any]]:
        mark = ","
        while mark == ",":
            self.peek()
            yield self._value()
            if (mark := self.peek()) not in (",", "]"):
                raise json.JSONDecodeError("Expecting ',' or ']'", self._text, 0)
            self.take()
        if self.peek():
            raise json.JSONDecodeError("Extra data", self._text, 0)

    def _value(self) -> tuple[Place, Any]:
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text)
            except json.JSONDecodeError:
                if not self._more():
                    raise
            except ValueError as error:  # a number of more digits than Python reads
                raise json.JSONDecodeError(str(error).partition(";")[0], self._text, 0) from error
            else:
                # A number that ends where the text does may go on.
                if end == len(self._text) and self._more():
                    continue
                start = self.byte
                self._drop(end)
                return Place(start, self.byte - start), value

    def _more(self) -> bool:
        # As much again: a long row is then not decoded from its beginning too often.
        piece = self._file.read(max(_PIECE, len(self._text)))
        self._text += piece
        return bool(piece)

    def _drop(self, count: int) -> None:
        self.byte += len(self._text[:count].encode())
        self._text = self._text[count:]
