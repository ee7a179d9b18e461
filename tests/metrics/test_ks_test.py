"""The exact Kolmogorov-Smirnov test: scipy's p where a float holds it, counts of paths, published values."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import ks_2samp

from unlearnkit.metrics.ks_test import KsTest, attainable, ks_test, largest_passing

SIZES = [(40, 40), (200, 200), (400, 400), (40, 39), (400, 397), (300, 200), (12, 400), (1, 1), (1, 5)]


@pytest.mark.parametrize("n, m", SIZES)
@pytest.mark.parametrize("shift", [0, 0.3, 3, 100])
def test_d_and_p_are_those_of_scipy(n, m, shift):
    random = np.random.default_rng(n + m)
    first, second = random.normal(size=n), random.normal(size=m) + shift
    expected, found = ks_2samp(first, second, method="exact"), ks_test(first, second)
    assert found.statistic == pytest.approx(expected.statistic, abs=1e-14)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-11)


def test_ties_and_infinities_count_as_in_scipy():
    first, second = [-math.inf, 0.0, 0.0, 1.0, 2.0], [-math.inf, -math.inf, 0.0, 1.0]
    expected, found = ks_2samp(first, second, method="exact"), ks_test(first, second)
    assert (found.statistic, found.p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))


@pytest.mark.parametrize("n, m", [(1, 1), (1, 2), (3, 2), (4, 6), (5, 7), (6, 6), (8, 4), (6, 9)])
def test_attainable_values_are_those_of_all_orders_of_the_values(n, m):
    heights = Counter(largest_height(n, m, set(first)) for first in itertools.combinations(range(n + m), n))
    found = list(attainable(n, m))
    assert [test.height for test in found] == sorted(heights)
    for test in found:
        above = sum(count for height, count in heights.items() if height >= test.height)
        assert test.p == pytest.approx(above / math.comb(n + m, n), rel=1e-11)
    for lower, higher in itertools.pairwise(found):
        assert (lower.next_lower, higher.next_higher) == (higher, lower)
    assert (found[0].p, found[0].next_higher, found[-1].next_lower) == (1, None, None)


def largest_height(n: int, m: int, first: set[int]) -> int:
    i, height = 0, 0
    for step in range(n + m):
        i += step in first
        height = max(height, abs(i * m - (step + 1 - i) * n))
    return height // math.gcd(n, m)


@pytest.mark.parametrize(
    "n, published",
    [
        (40, {0.1: 0.990, 0.125: 0.919, 0.2: 0.405, 0.225: 0.2657, 0.35: 0.01430, 0.425: 0.00127}),
        (200, {0.115: 0.14207, 0.12: 0.11228, 0.125: 0.08784}),
        (400, {0.06: 0.468, 0.07: 0.2812, 0.08: 0.1546, 0.09: 0.0783, 0.1: 0.03657, 0.11: 0.01576}),
    ],
)
def test_the_published_values_are_attainable(n, published):
    table = {round(test.statistic, 4): test.p for test in attainable(n, n)}
    assert len(table) == n
    for statistic, p in published.items():
        assert table[statistic] == pytest.approx(p, rel=2e-3), statistic


def test_forty_rows_have_fourteen_values_between_a_thousandth_and_one():
    assert sum(0.001 < test.p < 0.9905 for test in attainable(40, 40)) == 14


@pytest.mark.parametrize(
    "n, m, exact",
    [
        # Two of all orders have D = 1.
        (200, 200, 2 / math.comb(400, 200)),
        (400, 400, 1.06e-239),
        (400, 397, 2 / math.comb(797, 397)),
    ],
)
def test_the_least_p_of_the_published_tables(n, m, exact):
    assert KsTest(n, m, math.lcm(n, m)).p == pytest.approx(exact, rel=5e-3)


def test_the_logarithm_is_finite_where_p_is_not():
    for n, m in ((2000, 2000), (1000, 999)):
        test = ks_test(np.arange(n), np.arange(m) + 5000)
        digits = math.log10(2) - math.log10(math.comb(n + m, n))
        assert (test.statistic, test.p) == (1, 0)
        assert test.log10_p == pytest.approx(digits, rel=1e-11)


def test_samples_without_values_are_no_samples():
    for first in ([], [1.0, math.nan]):
        with pytest.raises(ValueError, match="empty or has a NaN"):
            ks_test(first, [1.0])


@pytest.mark.parametrize("n, m", [(100, 100), (20, 20), (7, 12)])
def test_the_largest_passing_distance_is_the_last_of_the_attainable_ones(n, m):
    passing = [test.statistic for test in attainable(n, m) if test.p >= 0.05]
    found = largest_passing(n, m, 0.05)
    assert found.p >= 0.05 and max(passing) <= found.statistic < max(passing) + 1 / min(n, m)
    assert all(test.p < 0.05 for test in attainable(n, m) if test.statistic > found.statistic)
