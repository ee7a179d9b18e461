"""The relative test: identities, the estimate against a plain computation, calibration under the null."""

import numpy as np
import pytest
from scipy.stats import norm

from unlearnkit.metrics import relative_test as module
from unlearnkit.metrics.relative_test import bandwidth, relative_test


def samples(seed: int, n: int = 60, correlation: float = 0.5, means=(0.0, -1.0, 1.0)) -> list[np.ndarray]:
    """Values of U, R and O on the same rows: a part that the rows have in common, and one of each model."""
    random = np.random.default_rng(seed)
    common = np.sqrt(correlation) * random.normal(size=n)
    return [mean + common + np.sqrt(1 - correlation) * random.normal(size=n) for mean in means]


def test_the_retain_model_itself_is_nearest_to_itself_and_the_original_farthest():
    _, retain, original = samples(0)
    forgotten, kept = relative_test(retain, retain, original), relative_test(original, retain, original)
    assert (forgotten.to_retain, forgotten.share) == (0, 1)
    assert (kept.to_original, kept.share) == (0, 0)
    assert forgotten.p > 0.99 and kept.p < 0.01


def test_three_equal_models_are_neither_nearer_nor_farther():
    same = samples(0)[0]
    found = relative_test(same, same, same)
    assert (found.to_retain, found.to_original, found.share, found.p) == (0, 0, 0.5, 0.5)


def test_retain_and_original_model_are_exchangeable():
    unlearned, retain, original = samples(3, means=(0, -0.4, 0.5))
    one, other = relative_test(unlearned, retain, original), relative_test(unlearned, original, retain)
    assert 0.05 < one.share < 0.95
    assert other.share == pytest.approx(1 - one.share)
    assert other.p == pytest.approx(1 - one.p)
    assert (other.to_retain, other.to_original) == (one.to_original, one.to_retain)


def test_the_order_of_the_rows_and_the_block_do_not_matter(monkeypatch):
    three = samples(4, 50)
    whole = relative_test(*three)
    monkeypatch.setattr(module, "BLOCK", 7)
    in_blocks = relative_test(*three)
    assert in_blocks.p == pytest.approx(whole.p)
    assert (in_blocks.to_retain, in_blocks.share) == (pytest.approx(whole.to_retain), whole.share)
    shuffled = np.random.default_rng(0).permutation(50)
    assert relative_test(*(values[shuffled] for values in three)).p == pytest.approx(whole.p)


def test_estimate_and_p_are_those_of_the_formulas():
    u, r, o = samples(5, 12)
    n, width = (
        len(u),
        np.median([abs(a - b) for k, a in enumerate([*u, *r, *o]) for b in [*u, *r, *o][k + 1 :]]),
    )
    assert bandwidth(np.concatenate([u, r, o])) == pytest.approx(width)
    others = [(i, j) for i in range(n) for j in range(n) if i != j]

    def k(a, b):
        return np.exp(-((a - b) ** 2) / (2 * width**2))

    def mmd(x, y):
        pairs = [k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i]) for i, j in others]
        return sum(pairs) / len(pairs)

    def slope(x, y, point):
        """Mean over the other rows of k(point, y) - k(point, x)."""
        return np.array(
            [np.mean([k(point[i], y[j]) - k(point[i], x[j]) for j in range(n) if j != i]) for i in range(n)]
        )

    found = relative_test(u, r, o)
    assert (found.to_retain, found.to_original) == (pytest.approx(mmd(u, r)), pytest.approx(mmd(u, o)))
    parts = (slope(r, o, u), slope(u, r, r), slope(u, o, o))
    sigma = np.sqrt(4 / n * sum(part.var(ddof=1) for part in parts))
    assert found.p == pytest.approx(norm.sf((mmd(u, r) - mmd(u, o)) / sigma))


def test_the_bootstrap_holds_its_level_on_paired_rows_and_the_normal_form_only_on_independent_ones(
    monkeypatch,
):
    """U in the middle between R and O: both figures would be uniform if they were calibrated."""
    monkeypatch.setattr(module, "RESAMPLES", 200)
    shares = {}
    for correlation in (0.0, 0.9):
        found = [relative_test(*samples(seed, 60, correlation)) for seed in range(200)]
        for name in ("share", "p"):
            values = np.array([getattr(test, name) for test in found])
            shares[name, correlation] = float((values < 0.1).mean()), float((values < 0.5).mean())
    for key in (("share", 0.0), ("share", 0.9), ("p", 0.0)):
        low, half = shares[key]
        assert 0.05 < low < 0.16 and 0.4 < half < 0.6, (key, shares)
    assert shares["p", 0.9][0] < 0.02


def test_many_rows_give_the_bandwidth_of_evenly_spaced_ones():
    values = np.random.default_rng(0).normal(size=2 * module.POINTS)
    # The median distance of two normal values is sqrt(2) times the upper quartile.
    assert bandwidth(values) == pytest.approx(np.sqrt(2) * norm.ppf(0.75), rel=0.03)


def test_values_that_do_not_differ_cannot_be_tested():
    for rows in (1, 5):
        with pytest.raises(ValueError, match="two rows and values that differ"):
            relative_test(*[np.zeros(rows)] * 3)
