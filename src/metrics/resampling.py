"""Bootstrap over rows: resampled figures, their 95 % percentile intervals, and those of figures made of other
figures.

Where all resamples have one figure the bootstrap bounds nothing: six rows of 0 do not show that a share is 0.
Such a mean has the exact binomial interval if it lies at an end of the range 0 to 1, and any other figure has
none.
"""

from collections.abc import Callable, Sequence

import numpy as np

from .spec import OfSamples, Value


def resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of samples of rows, drawn with replacement.

    Args:
        values: One value per row, [N].
        resamples: Number of samples.
        seed: Seed of the samples; the same for all metrics, so that metrics on the same rows see the same
            samples: equal columns have equal intervals, and figures of several columns are resampled jointly.

    Returns:
        A mean per sample, [resamples].
    """
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    return values[draws].mean(axis=1)


def resampled_figures(result: OfSamples, resamples: int, seed: int) -> np.ndarray:
    """A figure of several samples of rows, each of them drawn anew, [resamples]."""
    random = np.random.default_rng(seed)
    draw = lambda: (random.choice(sample, len(sample)) for sample in result.samples)
    return np.array([result.figure(*draw()) for _ in range(resamples)])


ALPHA = 0.05
EXACT = "exact binomial (Clopper-Pearson), since all rows are equal"
NONE = "none, since all resamples have this figure"


def percentiles(figures: np.ndarray) -> tuple[float, float] | None:
    """95 % percentile interval of resampled figures; None without any, or where all are the same."""
    if not len(figures) or np.ptp(figures) == 0:
        return None
    low, high = np.percentile(figures, [2.5, 97.5])
    return float(low), float(high)


def interval_of_mean(
    values: np.ndarray, means: np.ndarray, is_share: bool
) -> tuple[tuple[float, float] | None, str]:
    """95 % interval of the mean over rows.

    Args:
        values: One value per row, [N].
        means: Means of its resamples, see `resampled_means`; without any there is no interval.
        is_share: Whether values lie between 0 and 1.

    Returns:
        The interval, or None; and how it was made, or why there is none, where it is not the bootstrap's.
    """
    if len(values) < 2 or not len(means):
        return None, ""
    if np.ptp(values):
        return percentiles(means), ""
    if not is_share or values[0] not in (0, 1):
        return None, NONE
    # The mean of values between 0 and 1 is at most the share of values above 0, which this bounds.
    missed = (ALPHA / 2) ** (1 / len(values))
    return ((0.0, 1 - missed) if values[0] == 0 else (missed, 1.0)), EXACT


def interval(values: np.ndarray, resamples: int, seed: int) -> tuple[float, float] | None:
    """95 % interval of the mean over rows of a share, see `interval_of_mean`; None without resamples."""
    return interval_of_mean(values, resampled_means(values, resamples, seed), is_share=True)[0]


def derived(figure: Callable[..., float], parts: Sequence[Value]) -> Value:
    """A figure of other metrics' values, with an interval where all of them have one: the figure of each
    resample of theirs.

    Args:
        figure: Takes a number for each part.
        parts: Values that are not None.
    """
    value = float(figure(*(part.value for part in parts)))
    figures = np.array([figure(*cells) for cells in zip(*(part.resamples for part in parts))])
    return Value(value, n=len(parts), interval=percentiles(figures), resamples=figures)
