"""Plots: real PNG files whose ink is where the numbers say.

python -m pytest tests/unit/rise/metrics/test_plots.py
"""

import math

import numpy as np
import pytest
from matplotlib import image
from matplotlib.colors import to_rgb

from rise.episodes.shorthand import sketch
from rise.metrics.plots import COLOURS, plot_accuracy_by_turn, plot_weights
from rise.metrics.summary import summarise


def metrics(*problems: str) -> dict:
    turns = len(problems[0].split())
    return summarise(sketch(*problems), str.__eq__, max_turns=turns, feedback="none").metrics


def rows_of_colour(pixels: np.ndarray, colour: str) -> np.ndarray:
    """The heights, from the top, at which a colour appears in the left three quarters."""
    part = pixels[:, : pixels.shape[1] * 3 // 4, :3]
    return np.nonzero((np.abs(part - to_rgb(colour)) < 0.02).all(axis=2))[0]


def test_accuracy_by_turn_draws_every_run_in_its_colour(tmp_path):
    runs = {
        "base": metrics(*["w7 w7 w7"] * 30, *["r5 r5 r5"] * 10),
        "RISE": metrics(*["w7 r5 r5"] * 30, *["r5 r5 r5"] * 10),
    }
    path = tmp_path / "accuracy.png"
    plot_accuracy_by_turn(runs, path)
    pixels = image.imread(path)
    base, rise = (rows_of_colour(pixels, colour) for colour in COLOURS[:2])
    assert len(base) > 100 and len(rise) > 100
    assert np.median(rise) < np.median(base) - 50  # RISE rises to 100 %, the base stays at 25 %
    assert len(rows_of_colour(pixels, COLOURS[2])) == 0
    plot_accuracy_by_turn({"of one turn": metrics("r5", "r5")}, path)
    assert len(rows_of_colour(image.imread(path), COLOURS[0])) > 10
    assert [file.name for file in tmp_path.iterdir()] == ["accuracy.png"]


@pytest.mark.parametrize(
    "weights",
    [[1.0], [5e21] * 3, [6.7, math.nextafter(6.7, 7)], [-5e21, -5e21], [-1e300, 1e300], [0.0]],
)
def test_weights_of_any_size_and_distance_are_drawn(weights, tmp_path):
    path = tmp_path / "weights.png"
    plot_weights(weights, path)
    assert len(rows_of_colour(image.imread(path), COLOURS[0])) > 100
