"""A JSON list on disk, read row by row: millions of rows are never in memory as a whole."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

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
