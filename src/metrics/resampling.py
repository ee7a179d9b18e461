"""Bootstrap over rows: resampled figures, their 95 % percentile intervals, and those of figures made of other
figures.
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


def percentiles(figures: np.ndarray) -> tuple[float, float] | None:
    """95 % percentile interval of resampled figures; None without any."""
    if not len(figures):
        return None
    low, high = np.percentile(figures, [2.5, 97.5])
    return float(low), float(high)


def interval(values: np.ndarray, resamples: int, seed: int) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of the mean over rows, see `resampled_means`; None without
    resamples."""
    return percentiles(resampled_means(values, resamples, seed))


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
