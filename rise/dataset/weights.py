"""How much an attempt counts in training, and the means that this may be relative to.

They are over all attempts on a prompt, which several logs, or a data file twice, may have asked.
"""

import math
from array import array
from collections.abc import Sequence

import numpy as np

from rise.dataset.text_keys import text_key

WEIGHTINGS = ("exp", "advantage", "centered", "none")
RELATIVE = ("advantage", "centered")
"""Weightings that look at all attempts on the prompt."""


def weight(reward: float, mean: float, weighting: str, temperature: float) -> float:
    """How much an attempt counts in reward-weighted regression (eq. 3.6 of the paper).

    exp: exp(r / tau). advantage: exp((r - mean r) / tau), always positive. centered: exp(r / tau)
    minus the mean of exp(r / tau); below 0 for an attempt worse than average, which the model then
    learns to avoid. none: 1. The paper centres "around the mean value averaged across all attempts
    on a given prompt" (sec. 3.2) without a formula; advantage and centered are its two readings:
    `mean` is that of r or of exp(r / tau), from `PromptMeans`.
    ValueError for a weight that is not finite.

    >>> [round(weight(r, 0, "exp", 0.4), 3) for r in (1, 0, -1)]
    [12.182, 1.0, 0.082]
    >>> [round(weight(r, 0.5, "advantage", 0.5), 3) for r in (1, 0)]
    [2.718, 0.368]
    >>> [round(weight(r, (math.exp(2) + 1) / 2, "centered", 0.5), 3) for r in (1, 0)]
    [3.195, -3.195]
    """
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"temperature is {temperature}: tau must be a number above 0 (the paper: 0.4)"
        )
    if weighting == "none":
        return 1.0
    size = _exp(reward - mean if weighting == "advantage" else reward, temperature)
    if weighting == "centered":
        # Equal rewards centre to 0 exactly, whatever the mean's rounding left over.
        size = 0.0 if math.isclose(size, mean, rel_tol=1e-12) else size - mean
    if not math.isfinite(size):
        raise ValueError(
            f"the {weighting} weight of reward {reward} is {size} (mean {mean}, temperature "
            f"{temperature}): give finite rewards, or raise --temperature"
        )
    return size


def centred_value(reward: float, weighting: str, temperature: float) -> float:
    """What a weighting averages over the attempts: r, exp(r / tau), or nothing (0)."""
    if weighting == "centered":
        return _exp(reward, temperature)
    return float(reward) if weighting == "advantage" else 0.0


def _exp(reward: float, temperature: float) -> float:
    try:
        return math.exp(reward / temperature)
    except OverflowError as error:
        raise ValueError(
            f"exp({reward} / {temperature}) is too large for a number: raise --temperature"
        ) from error


class PromptMeans:
    """Means by question; `add` every episode first, then ask `of`. About 20 bytes per episode."""

    def __init__(self, weighting: str, temperature: float):
        self._of_what = (weighting, temperature)
        self._keys, self._sums, self._counts = array("Q"), array("d"), array("L")
        self._means: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, query: str, rewards: Sequence[float]) -> None:
        self._keys.append(text_key(query))
        self._sums.append(sum(centred_value(reward, *self._of_what) for reward in rewards))
        self._counts.append(len(rewards))

    def of(self, query: str) -> float:
        if self._means is None:
            keys, places = np.unique(np.frombuffer(self._keys, np.uint64), return_inverse=True)
            totals = np.bincount(places, weights=np.frombuffer(self._sums, np.float64))
            counts = np.bincount(places, weights=np.frombuffer(self._counts, np.uint64))
            self._means = keys, totals / counts
        keys, means = self._means
        return float(means[np.searchsorted(keys, np.uint64(text_key(query)))])
