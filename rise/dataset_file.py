"""The file of a data set, with its report and its histogram beside it.

The data set itself is put in place last, and taken away first when it is replaced: where it is, the
report beside it is its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rise.iterated import place
from rise.plots import plot_weights
from rise.trajectory import read_json, write_json


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
            "--overwrite replaces it"
        )
    before, now = read_json(report).get("settings", {}), json.loads(json.dumps(settings))
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if differing:
        raise ValueError(
            f"{output} was made with other settings ({', '.join(differing)}): give another "
            f"{place('--output')}, or --overwrite"
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

    Args:
        output: the file; a reader sees the old one or the whole new one. Directories are made.
        rows: one after the other, each as JSON; at least one.
        report: what to say about them, with the "settings" that `is_written` compares.
        weights: of the rows, in any order; without them there is no histogram.
        as_lines: JSON lines instead of a JSON list.

    Returns:
        The files.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f"{output.name}.tmp")
    begin, between, end = (b"", b"\n", b"\n") if as_lines else (b"[\n", b",\n", b"\n]\n")
    try:
        with open(temporary, "wb") as file:
            for number, row in enumerate(rows):
                file.write((between if number else begin) + row)
            file.write(end)
        output.unlink(missing_ok=True)
        files = [report_path(output)]
        if weights:
            files.append(plot_weights(weights, output.with_name(f"{output.name}_hist.png")))
        write_json(report_path(output), report)
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    return [output, *files]
