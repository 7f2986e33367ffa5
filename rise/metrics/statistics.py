"""Intervals and paired tests, all from scipy. A rate never travels without its interval and n.

The unit is always the problem: samples and turns of one problem are not independent, so they are
first averaged within the problem. Intervals are at the 95 % level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LEVEL = 0.95
RESAMPLES = 9999


@dataclass(frozen=True)
class Rate:
    """A mean over n problems with its 95 % interval.

    >>> print(Rate(value=0.5, low=0.25, high=0.75, n=12))
    50.0 % (25.0 to 75.0, n = 12)
    """

    value: float
    """A fraction between 0 and 1, a difference of two, or a number of turns."""
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        value, low, high = (100 * number for number in (self.value, self.low, self.high))
        return f"{value:.1f} % ({low:.1f} to {high:.1f}, n = {self.n})"

    def to_dict(self) -> dict[str, float | int]:
        return asdict(self)


def wilson(hits: Sequence[bool]) -> Rate:
    """The share of true values with its Wilson interval, which holds near 0 and 1 as well.

    >>> print(wilson([True, False, False]))
    33.3 % (6.1 to 79.2, n = 3)
    """
    from scipy.stats import binomtest

    count = sum(map(bool, hits))
    interval = binomtest(count, len(hits)).proportion_ci(LEVEL, method="wilson")
    # At 0 and n hits the ends of the Wilson interval are exact; scipy leaves rounding behind.
    low = 0.0 if count == 0 else float(interval.low)
    high = 1.0 if count == len(hits) else float(interval.high)
    return Rate(count / len(hits), low, high, len(hits))


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Rate:
    """The mean with the percentile interval of a bootstrap over problems.

    The bootstrap knows only the values it is given: where they are all equal, or where there is
    one, the interval is that value.

    >>> print(bootstrap_mean([0, 0, 1, 1, 1, 1, 0, 1]))
    62.5 % (25.0 to 100.0, n = 8)
    """
    import numpy as np
    from scipy.stats import bootstrap

    sample = np.asarray(values, dtype=float)
    mean = float(sample.mean())
    if (sample == sample[0]).all():
        return Rate(mean, mean, mean, len(sample))
    interval = bootstrap(
        (sample,),
        np.mean,
        confidence_level=LEVEL,
        n_resamples=RESAMPLES,
        method="percentile",
        batch=200,  # bounds the memory: 200 resamples at a time
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Rate(mean, float(interval.low), float(interval.high), len(sample))


def mean_share(shares: Sequence[float]) -> Rate:
    """The mean of fractions: Wilson's interval where each is 0 or 1, else the bootstrap's.

    >>> print(mean_share([0.0, 0.0, 0.0, 1.0]))
    25.0 % (4.6 to 69.9, n = 4)
    >>> print(mean_share([0.5, 0.5, 0.0, 1.0]))
    50.0 % (12.5 to 87.5, n = 4)
    """
    if all(share in (0, 1) for share in shares):
        return wilson([share == 1 for share in shares])
    return bootstrap_mean(shares)


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Rate:
    """The mean of a - b over problems, with a paired bootstrap interval.

    >>> print(paired_difference([1, 1, 0, 1], [0, 1, 0, 1]))
    25.0 % (0.0 to 75.0, n = 4)
    """
    return bootstrap_mean([float(x) - float(y) for x, y in zip(a, b, strict=True)], seed)


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """The p value of McNemar's exact test: of the problems where a and b disagree, half each?

    >>> mcnemar([1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 0, 1])
    0.125
    """
    from scipy.stats import binomtest

    wins = [bool(x) for x, y in zip(a, b, strict=True) if bool(x) != bool(y)]
    return float(binomtest(sum(wins), len(wins)).pvalue) if wins else 1.0


def paired(a: Mapping[int, bool], b: Mapping[int, bool]) -> dict[str, Any]:
    """The difference of two metrics over the problems that both have, with McNemar's "p_value"."""
    shared = sorted(a.keys() & b.keys())
    left, right = [a[task_id] for task_id in shared], [b[task_id] for task_id in shared]
    return paired_difference(left, right).to_dict() | {"p_value": mcnemar(left, right)}


def effective_sample_size(weights: Sequence[float]) -> float:
    """Kish's effective number of rows, (sum |w|)^2 / sum w^2: n where all weights are equal.

    Centred weights may be negative; their size is what counts. 0 where every weight is 0.

    >>> effective_sample_size([2.0, 2.0, 2.0])
    3.0
    >>> effective_sample_size([1.0, 1.0, 0.0, -1.0])
    3.0
    >>> effective_sample_size([1e300, -1e300, 1.0])
    2.0
    """
    largest = max(map(abs, weights), default=0.0)
    if largest == 0:
        return 0.0
    # Brought to at most 1: the square of a large one may be too large for a number.
    sizes = [abs(weight / largest) for weight in weights]
    return sum(sizes) ** 2 / sum(size**2 for size in sizes)
