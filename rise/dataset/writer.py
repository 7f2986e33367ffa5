"""The file of a data set, with its report and its histogram beside it.

The data set is put in place last, and taken away first when it is replaced: where it is, the report
beside it is its own. Rows on their way into it wait in a file without a name, of which nothing is
left behind. With --match_tokens it gets as many trained tokens as another one has, for a training
that costs the same: as many passes over its rows as fit, and of the last one a random part.
"""

from __future__ import annotations

import json
import logging
import os
import random
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fastchat.model.files import file_sha256
from fastchat.utils import new_file, write_json
from rise.dataset.report import TokenCounts
from rise.metrics.plots import plot_weights
from rise.program.files import read_object

log = logging.getLogger(__name__)


def report_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.report.json")


def is_written(output: Path, settings: dict[str, Any]) -> bool:
    """Whether the data set is there, made with these settings; ValueError if with others."""
    if not output.exists():
        return False
    report = report_path(output)
    if not report.exists():
        raise ValueError(
            f"{output} exists, but {report.name} does not, so nobody knows how it was made: "
            f"give another --output, or --overwrite to replace it"
        )
    before, now = read_object(report).get("settings", {}), json.loads(json.dumps(settings))
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if differing:
        names = ", ".join("the logs" if key == "inputs" else key for key in differing)
        raise ValueError(
            f"{output} was made with other settings ({names}): give another "
            "--output, or --overwrite to replace it"
        )
    return True


def write_dataset(
    output: Path,
    rows: Iterable[bytes],
    report: dict[str, Any],
    weights: Sequence[float] = (),
    *,
    as_lines: bool = False,
) -> list[Path]:
    """Write the rows, one per line, then the histogram of their weights and the report.

    A reader sees the old file or the whole new one. `report` has the "settings" that `is_written`
    compares. A histogram that cannot be drawn is a warning: it is not worth the rows.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    picture = output.with_name(f"{output.name}_hist.png")
    files = [output, report_path(output)]
    begin, between, end = (b"", b"\n", b"\n") if as_lines else (b"[\n", b",\n", b"\n]\n")
    try:
        with new_file(_new(output), "b") as file:
            for number, row in enumerate(rows):
                file.write((between if number else begin) + row)
            file.write(end)
        report = report | {"sha256": file_sha256(_new(output))}
        write_json(_new(report_path(output)), report)
        if weights and _drawn(weights, _new(picture)):
            files.append(picture)
        # All is made: only now does the old data set go.
        for path in (output, picture):
            path.unlink(missing_ok=True)
        for path in reversed(files):
            os.replace(_new(path), path)
    finally:
        for path in (*files, picture):
            _new(path).unlink(missing_ok=True)
    return files


def _new(path: Path) -> Path:
    return path.with_name(f"{path.name}.tmp")


def _drawn(weights: Sequence[float], path: Path) -> bool:
    try:
        plot_weights(weights, path)
    except (ValueError, ArithmeticError) as error:
        log.warning("the weights, %g to %g, cannot be drawn: %s", min(weights), max(weights), error)
        return False
    return True


class RowSpill:
    """Rows are appended, then read in any order; they wait on the disk of `output`."""

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
        self.offsets.append(self._end)
        # A half surrogate pair is no UTF-8; in ASCII it is an escape, as it was in the log.
        try:
            line = json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            line = json.dumps(row).encode("ascii")
        self._end += self._file.write(line + b"\n")

    def lines(self, offsets: Iterable[int]) -> Iterator[bytes]:
        for offset in offsets:
            self._file.seek(offset)
            yield self._file.readline().rstrip(b"\n")

    def rows(self, offsets: Iterable[int]) -> Iterator[dict[str, Any]]:
        return map(json.loads, self.lines(offsets))


def trained_tokens(path: Path, model_path: str | None) -> int:
    """The trained tokens of a data set of workflow_convert.py, as its report has them."""
    report = report_path(path)
    if not report.is_file():
        raise ValueError(
            f"--match_tokens {path}: {report.name} is not beside it; give a file that "
            "workflow_convert.py wrote"
        )
    found = read_object(report)
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
    """Which rows to write so that their trained tokens add up to the budget, to half a row.

    All of them as often as the budget holds them all, then some of them; at least one.

    >>> repeated([3, 3, 3], 18, seed=0), sorted(repeated([3, 3, 3], 15, seed=0)[:3])
    ([0, 1, 2, 0, 1, 2], [0, 1, 2])
    """
    passes, rest = divmod(budget, sum(lengths))
    places = list(range(len(lengths))) * passes
    last = list(range(len(lengths)))
    random.Random(seed).shuffle(last)
    for index in last:
        if 2 * rest < lengths[index]:
            break
        places.append(index)
        rest -= lengths[index]
    return places or last[:1]


def match_tokens(spill: RowSpill, tokens: TokenCounts, budget: int, seed: int) -> dict[str, int]:
    """Let a spill give its rows so often that the budget is met; returns what the report says."""
    lengths = tokens.answers
    if len(lengths) != len(spill):
        raise ValueError(f"--match_tokens: {tokens.to_dict()['not counted']}")
    places = repeated(lengths, budget, seed)
    spill.offsets = array("Q", (spill.offsets[place] for place in places))
    total = sum(lengths[place] for place in places)
    return {"budget": budget, "rows": len(places), "total": total}
