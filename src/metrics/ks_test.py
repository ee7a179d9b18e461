"""The two-sided two-sample Kolmogorov-Smirnov test with its exact p, also where p is too small for a float.

D is the largest distance between the distribution functions of samples of n and m values. It is a multiple of
1 / lcm(n, m), so p has few values: 40 for n = m = 40. Under the null hypothesis the order of the values is a
random path of n steps right and m steps up, and p is the share of paths that somewhere leave the strip
|i/n - j/m| < D (Hodges 1958, doi:10.1007/BF02589501), which scipy.stats.ks_2samp computes too. Sums are taken
in logarithms.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class KsTest:
    """Result of a test.

    Args:
        n: Values of the first sample.
        m: Values of the second sample.
        height: D in units of 1 / lcm(n, m).
    """

    n: int
    m: int
    height: int

    @property
    def statistic(self) -> float:
        """D, 0 to 1."""
        return self.height / math.lcm(self.n, self.m)

    @property
    def log_p(self) -> float:
        """Natural logarithm of p."""
        if self.height <= _least_height(self.n, self.m):
            return 0.0
        tail = (
            _log_tail_of_equal(self.n, self.height)
            if self.n == self.m
            else _log_tail(self.n, self.m, self.height)
        )
        return min(0.0, tail)

    @property
    def log10_p(self) -> float:
        """Decimal logarithm of p; finite for every D."""
        return self.log_p / math.log(10)

    @property
    def p(self) -> float:
        """P(a distance of at least D) under the null hypothesis; 0 where it is below 1e-308."""
        return math.exp(self.log_p)

    @property
    def next_lower(self) -> "KsTest | None":
        """The next D above this one, whose p is the next lower; None at D = 1."""
        start = max(self.height, _least_height(self.n, self.m))
        return self._at(_next_height(self.n, self.m, start))

    @property
    def next_higher(self) -> "KsTest | None":
        """The next D below this one, whose p is the next higher; None where p is 1."""
        below = _previous_height(self.n, self.m, self.height)
        return self._at(below) if below >= _least_height(self.n, self.m) else None

    def _at(self, height: int) -> "KsTest | None":
        return KsTest(self.n, self.m, height) if height <= math.lcm(self.n, self.m) else None


def ks_test(first: Sequence[float], second: Sequence[float]) -> KsTest:
    """Test whether two samples come from one distribution.

    Args:
        first: Values, [N]; infinities are allowed, NaN is not.
        second: Values, [M].

    Returns:
        The test; ties between the samples make p an upper bound, as in scipy.

    Raises:
        ValueError: A sample is empty or has a NaN.
    """
    samples = [np.sort(np.asarray(values, dtype=float)) for values in (first, second)]
    if any(not len(values) or np.isnan(values).any() for values in samples):
        raise ValueError("a sample of the Kolmogorov-Smirnov test is empty or has a NaN")
    n, m = map(len, samples)
    at_most = [np.searchsorted(values, np.concatenate(samples), "right") for values in samples]
    return KsTest(n, m, int(np.abs(at_most[0] * m - at_most[1] * n).max()) // math.gcd(n, m))


def attainable(n: int, m: int) -> Iterator[KsTest]:
    """Every D that samples of n and m different values can have, rising, the first with p = 1.

    They are 1/n, 2/n, ..., 1 where n = m. Unequal sizes have up to n m of them, and each p of these takes
    n + m steps over n values: take from the iterator what is needed.
    """
    found: KsTest | None = KsTest(n, m, _least_height(n, m))
    while found is not None:
        yield found
        found = found.next_lower


def largest_passing(n: int, m: int, p: float) -> KsTest:
    """The test with the largest D that samples of n and m values can have with a p of at least `p`."""
    low, high = _least_height(n, m), math.lcm(n, m) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if KsTest(n, m, middle).p >= p else (low, middle)
    return KsTest(n, m, low)


def _least_height(n: int, m: int) -> int:
    """Height of the least D: every path crosses each antidiagonal i + j = s, where the heights of
    neighbouring points differ by (n + m) / gcd and, for some s, the one nearest to 0 is half of that away."""
    return (n + m) // math.gcd(n, m) // 2


def _next_height(n: int, m: int, height: int) -> int:
    """The lowest |i m - j n| / gcd above `height` over all points; above lcm(n, m) where there is none."""
    i, divisor = np.arange(n + 1, dtype=np.int64), math.gcd(n, m)
    j = (i * m - (height + 1) * divisor) // n
    # Points with a negative difference mirror those with a positive one.
    return int((i * m - j * n)[j >= 0].min(initial=n * m + divisor)) // divisor


def _previous_height(n: int, m: int, height: int) -> int:
    """The highest |i m - j n| / gcd below `height` over all points."""
    i, divisor = np.arange(n + 1, dtype=np.int64), math.gcd(n, m)
    j = np.maximum(-((-i * m + (height - 1) * divisor) // n), 0)
    return int((i * m - j * n).max()) // divisor


def _log_tail_of_equal(n: int, height: int) -> float:
    """log P(D >= height / n) for two samples of n, by reflection at both borders of the strip:
    2 sum_k (-1)^(k+1) C(2n, n - k height) / C(2n, n), k = 1, 2, ..."""
    j = np.arange(n)
    ratios = np.cumsum(np.log((n - j) / (n + j + 1)))  # log C(2n, n - j - 1) / C(2n, n)
    terms = ratios[height - 1 :: height]
    signs = (-1.0) ** np.arange(len(terms))
    return float(math.log(2) + terms[0] + math.log((signs * np.exp(terms - terms[0])).sum()))


@lru_cache(maxsize=256)
def _log_tail(n: int, m: int, height: int) -> float:
    """log P(|i m - j n| >= height gcd somewhere on a random path), summed over the first such point of a
    path. Every term is positive, so that no digit is lost however small the sum is."""
    limit = height * math.gcd(n, m)
    i = np.arange(n + 1, dtype=np.int64)
    inside = np.full(n + 1, -np.inf)  # log P(the path is at (i, s - i) and was never outside)
    inside[0] = 0.0
    outside = []
    with np.errstate(divide="ignore"):
        right = np.log(n - i)
        for s in range(n + m):
            up = np.log(np.maximum(m - s + i, 0))
            stays, moves = inside + up, inside + right
            stays[1:] = np.logaddexp(stays[1:], moves[:-1])
            inside = stays - math.log(n + m - s)
            beyond = np.abs(i * m - (s + 1 - i) * n) >= limit
            outside.append(np.logaddexp.reduce(inside[beyond], initial=-np.inf))
            inside[beyond] = -np.inf
    return float(np.logaddexp.reduce(outside))
