"""The means that `advantage` and `centered` weights are relative to, over all attempts on a prompt.

One prompt may have been asked several times: in several iterations, or twice in one data file. All
its attempts count, all samples of all turns, whichever log they are in.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from rise.text_keys import text_key
from rise.weights import centred_value


class PromptMeans:
    """Means by question; `add` every episode first, then ask `of`. About 20 bytes per episode.

    Args:
        weighting: exp, advantage, centered or none; see `rise.weights.weight`.
        temperature: tau.
    """

    def __init__(self, weighting: str, temperature: float):
        self._of_what = (weighting, temperature)
        self._keys, self._sums, self._counts = array("Q"), array("d"), array("L")
        self._means: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, query: str, rewards: Sequence[float]) -> None:
        """Count the rewards of one episode.

        Raises:
            ValueError: if a reward gives too large a number.
        """
        self._keys.append(text_key(query))
        self._sums.append(sum(centred_value(reward, *self._of_what) for reward in rewards))
        self._counts.append(len(rewards))

    def of(self, query: str) -> float:
        """The mean over all attempts on a question that was added."""
        if self._means is None:
            keys, places = np.unique(np.frombuffer(self._keys, np.uint64), return_inverse=True)
            totals = np.bincount(places, weights=np.frombuffer(self._sums, np.float64))
            counts = np.bincount(places, weights=np.frombuffer(self._counts, np.uint64))
            self._means = keys, totals / counts
        keys, means = self._means
        return float(means[np.searchsorted(keys, np.uint64(text_key(query)))])
