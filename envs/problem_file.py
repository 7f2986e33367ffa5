"""A file of problems that is checked once and read on demand: its size costs next to no memory."""

import hashlib
import os
import weakref
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

CACHED = 4096
"""Rows kept in memory: those of the episodes in flight are asked for at every turn."""


class ProblemFile(Sequence[dict[str, Any]]):
    """The problems of a file of JSON lines; in memory are 8 bytes of each, and the last ones read.

    The file stays open, so that a run goes on when it is moved or replaced. ``parse`` makes a row
    of a line, ``check`` is asked once per row; both raise ValueError.
    """

    def __init__(
        self,
        path: Path,
        parse: Callable[[bytes], dict[str, Any]],
        check: Callable[[dict[str, Any]], None],
        example_line: str,
    ):
        self.path = path
        self._parse = parse
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._starts = array("q")
        digest = hashlib.sha256()
        offset = 0
        with open(self._descriptor, "rb", closefd=False) as lines:
            for number, line in enumerate(lines, start=1):
                digest.update(line)
                if line.strip():
                    self._starts.append(offset)
                    try:
                        check(parse(line))
                    except ValueError as error:
                        raise ValueError(
                            f"{path}, line {number}: {error}. A good line: {example_line}"
                        ) from error
                offset += len(line)
        if not self._starts:
            raise ValueError(f"{path} has no problems. A good line: {example_line}")
        self._starts.append(offset)
        self.sha256 = digest.hexdigest()
        """Of the bytes that were checked."""
        self._row = lru_cache(CACHED)(self._read)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index):
        chosen = range(len(self))[index]
        return self._row(chosen) if isinstance(chosen, int) else [self._row(i) for i in chosen]

    def _read(self, index: int) -> dict[str, Any]:
        start, end = self._starts[index : index + 2]
        # The blank lines before the next problem come along.
        lines = os.pread(self._descriptor, end - start, start)
        try:
            return self._parse(lines.partition(b"\n")[0])
        except ValueError as error:
            raise ValueError(
                f"{self.path} was changed while it is used: problem {index}: {error}"
            ) from error
