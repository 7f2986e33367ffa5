"""The file of a data set, with its report and its histogram beside it.

The data set itself is put in place last, and taken away first when it is replaced: where it is, the
report beside it is its own.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rise.iterated import is_stage, place
from rise.json_files import read_json, write_json
from rise.plots import plot_weights

log = logging.getLogger(__name__)


def report_path(output: Path) -> Path:
    """OUTPUT.report.json."""
    return output.with_name(f"{output.name}.report.json")


def is_written(output: Path, settings: dict[str, Any]) -> bool:
    """Whether the data set is there, made with these settings.

    Raises:
        ValueError: if the file is there but was made otherwise.
    """
    if not output.exists():
        return False
    report = report_path(output)
    if not report.exists():
        raise ValueError(
            f"{output} exists, but {report.name} does not, so nobody knows how it was made: "
            f"give another {place('--output')}{_or_overwrite()}"
        )
    before, now = read_json(report).get("settings", {}), json.loads(json.dumps(settings))
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if differing:
        raise ValueError(
            f"{output} was made with other settings ({', '.join(differing)}): give another "
            f"{place('--output')}{_or_overwrite()}"
        )
    return True


def _or_overwrite() -> str:
    """The other remedy, which rise.iterate does not have."""
    return "" if is_stage() else ", or --overwrite to replace it"


def write_dataset(
    output: Path,
    rows: Iterable[bytes],
    report: dict[str, Any],
    weights: Sequence[float] = (),
    *,
    as_lines: bool = False,
) -> list[Path]:
    """Write the rows, one per line, then the histogram of their weights and the report.

    Args:
        output: the file; a reader sees the old one or the whole new one. Directories are made.
        rows: one after the other, each as JSON; at least one.
        report: what to say about them, with the "settings" that `is_written` compares.
        weights: of the rows, in any order; without them there is no histogram.
        as_lines: JSON lines instead of a JSON list.

    Returns:
        The files. A histogram that cannot be drawn is a warning: it is not worth the rows.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    picture = output.with_name(f"{output.name}_hist.png")
    files = [output, report_path(output)]
    begin, between, end = (b"", b"\n", b"\n") if as_lines else (b"[\n", b",\n", b"\n]\n")
    try:
        with open(_new(output), "wb") as file:
            for number, row in enumerate(rows):
                file.write((between if number else begin) + row)
            file.write(end)
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
    """Where a file is made before it takes its place."""
    return path.with_name(f"{path.name}.tmp")


def _drawn(weights: Sequence[float], path: Path) -> bool:
    """Draw the histogram; whether it could be done."""
    try:
        plot_weights(weights, path)
    except (ValueError, ArithmeticError) as error:
        log.warning("the weights, %g to %g, cannot be drawn: %s", min(weights), max(weights), error)
        return False
    return True
