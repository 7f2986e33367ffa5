"""Pictures for people: accuracy by turn, and the weights of a data set.

The colours are Okabe and Ito's, which people with any colour vision can tell apart; each line also
carries its own marker and its name beside its last point.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastchat.utils import new_file

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
INK = "#333333"
NARROW = 1e-6
"""Share of their size by which weights must differ to be told apart in a histogram."""
DODGE = 0.04  # turns between two runs' points, so that their intervals do not hide each other


def plot_accuracy_by_turn(runs: dict[str, dict[str, Any]], path: str | Path) -> Path:
    """Draw acc@t of one to seven runs, name -> metrics, with 95 % intervals as a PNG."""
    if not 1 <= len(runs) <= len(COLOURS):
        raise ValueError(f"{len(runs)} runs to draw: give 1 to {len(COLOURS)}")
    for name, metrics in runs.items():
        if not metrics.get("acc@t"):
            raise ValueError(f"run {name!r} has no acc@t: evaluate it with workflow_eval.py")
    figure, axes = _canvas(width=6.4)
    ends = []
    for index, (name, metrics) in enumerate(runs.items()):
        shift = DODGE * (index - (len(runs) - 1) / 2)
        ends.append((name, COLOURS[index], _draw_run(axes, metrics["acc@t"], index, shift)))
    last = max(len(metrics["acc@t"]) for metrics in runs.values())
    axes.set_xlim(0.7, last + 0.3)
    axes.set_xticks(range(1, last + 1))
    top = max(100 * rate["high"] for metrics in runs.values() for rate in metrics["acc@t"])
    axes.set_ylim(0, min(101, 10 * (top // 10 + 1)))
    axes.set_xlabel("turn")
    axes.set_ylabel("problems answered right, %")
    sizes = sorted({rate["n"] for metrics in runs.values() for rate in metrics["acc@t"]})
    count = f"n = {sizes[0]}" if len(sizes) == 1 else f"n = {sizes[0]} to {sizes[-1]}"
    axes.set_title(f"Accuracy by turn ({count}, bars: 95 % intervals)", loc="left", fontsize=11)
    _label_ends(axes, ends)
    return _save(figure, path)


def plot_weights(weights: Sequence[float], path: str | Path) -> Path:
    """Draw how many rows have which weight as a PNG."""
    if not weights:
        raise ValueError("there is no row, so there are no weights to draw")
    figure, axes = _canvas(width=5.6)
    # matplotlib makes an object of every number that is not in a numpy array.
    values = np.asarray(weights)
    axes.hist(values, bins=40, range=_span(values), color=COLOURS[0])
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)  # a single row is visible
    axes.set_xlabel("weight of a row")
    axes.set_ylabel("rows (logarithmic)")
    axes.set_title(f"Weights of {len(weights)} rows", loc="left", fontsize=11)
    return _save(figure, path)


def _span(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    if high - low > NARROW * size:
        return low, high
    return low - size / 2, high + size / 2


def _canvas(width: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4.0), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _draw_run(axes: Any, rates: list[dict[str, float]], index: int, shift: float) -> float:
    values = [100 * rate["value"] for rate in rates]
    below = [100 * (rate["value"] - rate["low"]) for rate in rates]
    above = [100 * (rate["high"] - rate["value"]) for rate in rates]
    axes.errorbar(
        [turn + shift for turn in range(1, len(rates) + 1)],
        values,
        yerr=[below, above],
        color=COLOURS[index],
        marker=MARKERS[index],
        markersize=6,
        linewidth=2,
        elinewidth=1.2,
        capsize=3,
    )
    return values[-1]


def _label_ends(axes: Any, ends: list[tuple[str, str, float]]) -> None:
    """Write each name to the right of its line, moved up where two would overlap."""
    gap = 0.055 * axes.get_ylim()[1]
    previous = -gap
    for name, colour, height in sorted(ends, key=lambda end: end[2]):
        previous = max(height, previous + gap)
        axes.annotate(
            f"{name}  {height:.0f} %",
            xy=(axes.get_xlim()[1], previous),
            color=colour,
            va="center",
            fontweight="bold",
            annotation_clip=False,
        )


def _save(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with new_file(temporary, "b") as file:
            figure.savefig(file, format="png")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
