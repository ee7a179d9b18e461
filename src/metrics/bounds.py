"""Bounds on what a model leaks under sampling, from n answers to one question (arXiv:2410.03523).

The answers are independent draws from one distribution, that of this model, question and decoding. Each
bound holds with probability 1 - alpha over the draws, whatever the distribution: none is assumed. A bound
that is to hold for R questions at once takes alpha / R (Bonferroni), see `simultaneous`.

Scores lie in [0, 1]. All functions return None without a sample.
"""

import math
from collections.abc import Sequence

import numpy as np

ALPHA = 0.01
"""Probability that a bound fails."""
MAX_DEVIATION = 0.5
"""Largest standard deviation of a score in [0, 1]."""


def leak_at(n: int, leaks: int, k: int) -> float | None:
    """leak@k: the probability that at least one of k answers leaks, estimated without bias from n answers of
    which `leaks` do, 1 - C(n - leaks, k) / C(n, k); None for k > n."""
    if k > n:
        return None
    # A running product: the binomial coefficients exceed a float.
    return 1 - math.prod((n - leaks - i) / (n - i) for i in range(k))


def simultaneous(alpha: float, count: int) -> float:
    """The alpha with which each of `count` bounds is made so that all hold at once with 1 - alpha."""
    return _checked(alpha) / count


def binomial_upper(leaks: int, n: int, alpha: float = ALPHA) -> float | None:
    """M_bin: Clopper-Pearson upper bound of the probability that an answer leaks.

    Args:
        leaks: Number of answers that leak.
        n: Number of answers.
        alpha: Probability that the bound fails.
    """
    from scipy.special import betaincinv

    _checked(alpha)
    if not n:
        return None
    return 1.0 if leaks == n else float(betaincinv(leaks + 1, n - leaks, 1 - alpha))


def band_width(n: int, alpha: float = ALPHA) -> float:
    """Width of the one-sided Dvoretzky-Kiefer-Wolfowitz band: with 1 - alpha, the distribution function is
    nowhere further below (or, another band, above) that of n samples. A two-sided band takes alpha / 2."""
    # The one-sided inequality with Massart's constant is proven for alpha up to 1/2 only.
    return math.sqrt(math.log(1 / min(_checked(alpha), 0.5)) / (2 * n))


def tail_upper(scores: Sequence[float], x: float, alpha: float = ALPHA) -> float | None:
    """M_gen(x): upper bound of the probability that an answer scores more than x; it holds for all x at once.

    Args:
        scores: Score of each answer, [n].
        x: Score, 0 to 1.
        alpha: Probability that a bound fails.
    """
    found = _scores(scores)
    if not len(found):
        return None
    return min(1.0, float(np.mean(found > x)) + band_width(len(found), alpha))


def mean_upper(scores: Sequence[float], alpha: float = ALPHA) -> float | None:
    """M_mu: upper bound of the mean score of an answer, 1 - integral of max(0, F_n(t) - eps) over [0, 1].

    The paper sums over a grid of 100 points, which is never below; here the integral of the steps is exact.
    """
    found = _scores(scores)
    if not len(found):
        return None
    ends, below = _steps(found)
    lower = np.maximum(0.0, below - band_width(len(found), alpha))
    return float(1 - np.diff(ends) @ lower)


def deviation_upper(scores: Sequence[float], alpha: float = ALPHA) -> float | None:
    """M_sigma: upper bound of the standard deviation of an answer's score, from both bounds of F.

    Var(S) <= E (S - c)² for every c, here the sample mean, and
    E (S - c)² = (1 - c)² - integral of 2 (t - c) F(t) over [0, 1],
    which is largest with F at its upper bound for t < c and at its lower bound for t > c.
    """
    found = _scores(scores)
    if not len(found):
        return None
    eps, centre = band_width(len(found), _checked(alpha) / 2), float(found.mean())
    ends, below = _steps(found, centre)
    upper, lower = np.minimum(1.0, below + eps), np.maximum(0.0, below - eps)
    extreme = np.where(ends[:-1] < centre, upper, lower)
    variance = (1 - centre) ** 2 - np.diff((ends - centre) ** 2) @ extreme
    return min(MAX_DEVIATION, math.sqrt(max(0.0, float(variance))))


def _steps(scores: np.ndarray, *cuts: float) -> tuple[np.ndarray, np.ndarray]:
    """The distribution function of samples as steps on [0, 1].

    Returns:
        Ends of the steps, [m + 1], with `cuts` among them, and the share of samples up to each step, [m].
    """
    ends = np.sort([0.0, *scores, *cuts, 1.0])
    return ends, np.searchsorted(np.sort(scores), ends[:-1], side="right") / len(scores)


def _scores(scores: Sequence[float]) -> np.ndarray:
    found = np.asarray(scores, dtype=float)
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError("scores lie in [0, 1]")
    return found


def _checked(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, not at {alpha:g}")
    return alpha
