"""Intervals and paired tests against closed forms and published values.

python -m pytest tests/unit/rise/metrics/test_statistics.py
"""

import math

import pytest

from rise.metrics.statistics import (
    bootstrap_mean,
    effective_sample_size,
    mcnemar,
    paired_difference,
    wilson,
)


def test_wilson_agrees_with_its_closed_form():
    hits, n, z = 29, 100, 1.959963984540054
    rate = wilson([True] * hits + [False] * (n - hits))
    centre = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    assert rate.value == 0.29 and rate.n == 100
    assert math.isclose(rate.low, centre - half) and math.isclose(rate.high, centre + half)


@pytest.mark.parametrize(("hit", "low", "high"), [(False, 0.0, 0.278), (True, 0.722, 1.0)])
def test_wilson_claims_no_certainty_from_ten_equal_values(hit, low, high):
    rate = wilson([hit] * 10)
    assert (round(rate.low, 3), round(rate.high, 3)) == (low, high)


def test_bootstrap_comes_close_to_the_normal_interval_and_repeats():
    values = [0.0] * 300 + [1.0] * 100
    rate = bootstrap_mean(values)
    half = 1.96 * math.sqrt(0.25 * 0.75 / 400)
    assert rate.value == 0.25
    assert abs(rate.low - (0.25 - half)) < 0.005 and abs(rate.high - (0.25 + half)) < 0.005
    assert bootstrap_mean(values) == rate
    assert bootstrap_mean(values, seed=1) != rate
    assert bootstrap_mean([2, 2, 2]).to_dict() == {"value": 2.0, "low": 2.0, "high": 2.0, "n": 3}
    assert bootstrap_mean([1]).low == 1.0


def test_pairing_narrows_the_interval():
    a, b = [1] * 60 + [0] * 40, [1] * 50 + [0] * 50
    paired = paired_difference(a, b)
    shuffled = paired_difference(a, b[::-1])
    assert paired.value == shuffled.value == pytest.approx(0.1)
    assert paired.high - paired.low < (shuffled.high - shuffled.low) / 2


def test_mcnemar_is_the_binomial_test_of_the_disagreements():
    a = [1] * 8 + [0] * 2 + [1] * 90
    b = [0] * 8 + [1] * 2 + [1] * 90
    # 2 * (C(10,0) + C(10,1) + C(10,2)) / 2^10 = 112 / 1024
    assert mcnemar(a, b) == pytest.approx(112 / 1024)
    assert mcnemar([1, 0], [1, 0]) == 1.0


def test_effective_sample_size():
    # One row of weight 3 and three of weight 1: (3 + 3)^2 / (9 + 3) = 3.
    assert effective_sample_size([3, 1, 1, 1]) == pytest.approx(3)
    assert effective_sample_size([0, 0]) == 0
    assert effective_sample_size([1e217, -1e217, 1.0]) == 2
    assert effective_sample_size([5e-324, 5e-324]) == 2
