"""Rows on their way into a data set: on the disk, with 8 bytes each in memory to find them again.

The file has no name: nothing is left behind when the program is stopped, however that happens.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class RowSpill:
    """Context manager; rows are appended, then read in any order.

    Args:
        output: the file that the rows are for: they are kept on the same disk, in the nearest
            directory above it that exists.
    """

    def __init__(self, output: Path):
        self._output = output
        self._directory = next(path for path in output.absolute().parents if path.is_dir())
        self.offsets = array("Q")
        """Where each row begins, in the order in which they came."""
        self._end = 0

    def __enter__(self) -> RowSpill:
        try:
            self._file = tempfile.TemporaryFile(dir=self._directory)
        except OSError as error:
            # It has a random name, which tells the user nothing.
            raise OSError(error.errno, error.strerror, f"--output {self._output}") from error
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self.offsets)

    def append(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self.offsets.append(self._end)
        # A half surrogate pair is no UTF-8; in ASCII it is an escape, as it was in the log.
        try:
            line = json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            line = json.dumps(row).encode("ascii")
        self._end += self._file.write(line + b"\n")

    def lines(self, offsets: Iterable[int]) -> Iterator[bytes]:
        """The rows that begin there as JSON, without the ends of lines."""
        for offset in offsets:
            self._file.seek(offset)
            yield self._file.readline().rstrip(b"\n")

    def rows(self, offsets: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The rows that begin there."""
        return map(json.loads, self.lines(offsets))
