"""The relative test of three samples: is the unlearned model U nearer to the retain model R than to the
original model O? (Bounliphone et al., arXiv:1511.04581; for unlearning arXiv:2601.19755.)

Null hypothesis D(U, R) <= D(U, O), with D = MMD², the squared maximum mean discrepancy under a Gaussian
kernel k(x, y) = exp(-(x - y)² / 2w²), w the median distance within the pooled sample. Unbiased over rows:

    MMD²(U, R) = mean over i != j of h(i, j),   h = k(u_i, u_j) + k(r_i, r_j) - k(u_i, r_j) - k(r_i, u_j)

The same rows are behind all three samples. Two consequences:

- The row bootstrap draws rows, each with its three values, so that it is valid for paired rows. A row drawn
  twice is no pair with itself.
- The paper's normal p takes the three samples to be independent. Rows that are hard for one model are hard
  for the others, and the difference then varies less than its variance says: p lies nearer to .5 than it
  should.
"""

import math
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
BLOCK = 512
"""Rows of a kernel matrix that are held at a time."""
POINTS = 3000
"""Most points whose distances give the bandwidth: of more, evenly spaced ones in rising order."""


@dataclass(frozen=True)
class RelativeTest:
    """Result of a test.

    Args:
        to_retain: MMD²(U, R), unbiased: below 0 by chance where both are alike.
        to_original: MMD²(U, O).
        share: Share of the resamples of the rows in which U is nearer to R than to O, ties counting half.
        p: One-sided normal p of the paper, P(N > t), t = [MMD²(U, R) - MMD²(U, O)] / sigma, for independent
            samples; low where U is nearer to O.
    """

    to_retain: float
    to_original: float
    share: float
    p: float


def relative_test(
    unlearned: np.ndarray, retain: np.ndarray, original: np.ndarray, seed: int = 0
) -> RelativeTest:
    """Test on one finite value per row and model, [N] each, in the same order of rows.

    Args:
        unlearned: Values of U.
        retain: Values of R.
        original: Values of O.
        seed: Seed of the resamples.

    Raises:
        ValueError: There are fewer than two rows, or all values are equal.
    """
    n, width = len(unlearned), bandwidth(np.concatenate([unlearned, retain, original]))
    if n < 2 or not width:
        raise ValueError("the relative test needs two rows and values that differ")
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    weights = np.vstack([np.ones(n), draws])
    totals = np.zeros((2, len(weights)))  # sum of h over pairs of rows, to R and to O, by resample
    means = np.zeros(
        (3, n)
    )  # derivatives of MMD²(U, R) - MMD²(U, O) with respect to a point of U, R, O, halved
    for start in range(0, n, BLOCK):
        block = slice(start, start + BLOCK)
        k = _Kernels(width, block)
        uu, rr, oo = (k(values, values) for values in (unlearned, retain, original))
        ur, ru, uo, ou = (
            k(*two)
            for two in (
                (unlearned, retain),
                (retain, unlearned),
                (unlearned, original),
                (original, unlearned),
            )
        )
        for side, h in enumerate((uu + rr - ur - ru, uu + oo - uo - ou)):
            totals[side] += ((weights @ h.T) * weights[:, block]).sum(1)
        means[:, block] = [part.sum(1) / (n - 1) for part in (uo - ur, rr - ru, ou - oo)]
    to_retain, to_original = (float(total[0]) / (n * (n - 1)) for total in totals)
    nearer = (totals[0, 1:] < totals[1, 1:]) + 0.5 * (totals[0, 1:] == totals[1, 1:])
    sigma = math.sqrt(4 / n * means.var(axis=1, ddof=1).sum())
    return RelativeTest(
        to_retain, to_original, float(nearer.mean()), _upper_tail(to_retain - to_original, sigma)
    )


class _Kernels:
    """Kernel values of a block of rows with all rows, [B, N]; 0 for a row with itself."""

    def __init__(self, width: float, block: slice):
        self.width, self.block = width, block

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        values = np.exp(-((first[self.block, None] - second) ** 2) / (2 * self.width**2))
        places = np.arange(len(values))
        values[places, places + self.block.start] = 0.0
        return values


def bandwidth(pooled: np.ndarray) -> float:
    """Median distance between two different points, [N]; 0 where more than half of them are 0."""
    ordered = np.sort(pooled)
    if len(ordered) > POINTS:
        ordered = ordered[np.linspace(0, len(ordered) - 1, POINTS).round().astype(int)]
    first, second = np.triu_indices(len(ordered), 1)
    return float(np.median(ordered[second] - ordered[first]))


def _upper_tail(difference: float, sigma: float) -> float:
    """P(N > difference / sigma), .5 where there is no difference."""
    return 0.5 * math.erfc(difference / sigma / math.sqrt(2)) if difference and sigma else 0.5
