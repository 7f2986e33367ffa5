"""Pictures for people: accuracy by turn, and the weights of a data set.

The colours are Okabe and Ito's, which people with any colour vision can tell apart; each line also
carries its own marker.
"""

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


def plot_accuracy_by_turn(runs: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw acc@t of runs, name -> metrics, as a PNG."""
    _save(accuracy_by_turn({name: metrics["acc@t"] for name, metrics in runs.items()}), path)


def accuracy_by_turn(runs: dict[str, list[dict[str, float]]]) -> Any:
    """Lines of acc@t with bands of their 95 % intervals, one per run: name -> rates."""
    figure, (axes,) = canvas()
    for index, (name, rates) in enumerate(runs.items()):
        turns, colour = range(1, len(rates) + 1), COLOURS[index % len(COLOURS)]
        values, low, high = ([100 * r[key] for r in rates] for key in ("value", "low", "high"))
        marker = MARKERS[index % len(MARKERS)]
        axes.plot(turns, values, color=colour, marker=marker, label=name, linewidth=2)
        axes.fill_between(turns, low, high, color=colour, alpha=0.18, linewidth=0)
    longest = max(map(len, runs.values()))
    axes.set_xticks(range(1, longest + 1))
    axes.set_xlim(0.8, longest + 0.2)
    axes.set_ylim(0, 100)
    axes.set_xlabel("turn")
    axes.set_ylabel("right, %")
    axes.legend(frameon=False, labelcolor=INK)
    return figure


def plot_weights(weights: Sequence[float], path: Path) -> None:
    """Draw how many rows have which weight as a PNG."""
    figure, (axes,) = canvas()
    # matplotlib makes an object of every number that is not in a numpy array.
    values = np.asarray(weights)
    axes.hist(values, bins=40, range=_span(values), color=COLOURS[0])
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)  # a single row is visible
    axes.set_xlabel("weight of a row")
    axes.set_ylabel("rows (logarithmic)")
    axes.set_title(f"Weights of {len(weights)} rows", loc="left", fontsize=11)
    _save(figure, path)


def canvas(panels: int = 1) -> tuple[Any, Sequence[Any]]:
    """A figure, and its axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2 if panels == 1 else 3.6 * panels, 3.4), layout="constrained")
    panes = figure.subplots(1, panels, squeeze=False, sharey=True)[0]
    for axes in panes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        axes.tick_params(colors=INK)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
        axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, panes


def _span(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    if high - low > NARROW * size:
        return low, high
    return low - size / 2, high + size / 2


def _save(figure: Any, path: Path) -> None:
    with new_file(path, "b") as file:
        figure.savefig(file, format="png", dpi=160)
