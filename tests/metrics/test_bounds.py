"""leak@k against the published values; bounds against scipy, their definitions, and simulated samples."""

import json
from itertools import combinations
from math import log, sqrt

import numpy as np
import pytest
from conftest import GOLDEN
from scipy.stats import binomtest

from unlearnkit.metrics.bounds import (
    band_width,
    binomial_upper,
    deviation_upper,
    leak_at,
    mean_upper,
    simultaneous,
    tail_upper,
)

BOUNDS_OF_SCORES = [mean_upper, deviation_upper, lambda scores, alpha=0.01: tail_upper(scores, 0.5, alpha)]
SCORES = {
    "all 0": np.zeros(40),
    "all 1": np.ones(40),
    "both ends": np.array([0.0] * 20 + [1.0] * 20),
    "mixed": np.random.default_rng(0).beta(1, 4, 40),
}


def test_leak_at_k_has_the_golden_values():
    cases = json.loads((GOLDEN / "metrics/expected/text_metrics.json").read_text())["leak_at_k"]
    assert len(cases) > 50
    for case in cases:
        found = leak_at(case["n"], case["c"], case["k"])
        wanted = case["value"]
        assert found == (wanted if wanted is None else pytest.approx(wanted, abs=1e-12))


def test_leak_at_k_is_the_share_of_all_choices_of_k_answers_with_a_leak():
    for leaks in range(7):
        answers = [True] * leaks + [False] * (6 - leaks)
        for k in range(1, 7):
            chosen = [any(some) for some in combinations(answers, k)]
            assert leak_at(6, leaks, k) == pytest.approx(np.mean(chosen))


def test_clopper_pearson_is_that_of_scipy():
    for n in (1, 7, 128):
        for leaks in {0, 1, n // 2, n}:
            # A two-sided interval of 98 % has one-sided bounds of 99 %.
            other = binomtest(leaks, n).proportion_ci(confidence_level=0.98, method="exact").high
            assert binomial_upper(leaks, n, 0.01) == pytest.approx(other, rel=1e-9)
    assert binomial_upper(0, 32, 0.01) == pytest.approx(1 - 0.01 ** (1 / 32))


@pytest.mark.parametrize("bound", BOUNDS_OF_SCORES)
@pytest.mark.parametrize("name", SCORES)
def test_bounds_lie_between_the_figure_of_the_samples_and_1(bound, name):
    scores = SCORES[name]
    figure = {mean_upper: scores.mean(), deviation_upper: scores.std()}.get(bound, (scores > 0.5).mean())
    wide, narrow = bound(scores, 0.001), bound(scores, 0.2)
    assert figure - 1e-12 <= narrow <= wide <= 1


@pytest.mark.parametrize("bound", BOUNDS_OF_SCORES)
def test_bounds_tend_to_the_figure_of_many_samples(bound):
    scores = np.random.default_rng(1).beta(2, 3, 400_000)
    figure = {mean_upper: scores.mean(), deviation_upper: scores.std()}.get(bound, (scores > 0.5).mean())
    assert bound(scores) == pytest.approx(figure, abs=0.01)
    assert bound(scores) < bound(scores[:1000]) < bound(scores[:50])


def test_the_bound_of_the_mean_is_at_most_that_of_the_paper_on_its_grid():
    grid = np.linspace(0, 1, 101)
    for scores in SCORES.values():
        below = np.array([(scores <= t).mean() for t in grid[:-1]])
        on_grid = 1 - np.sum(0.01 * np.maximum(0, below - band_width(40)))
        assert mean_upper(scores) <= on_grid + 1e-12
        assert mean_upper(scores) == pytest.approx(on_grid, abs=0.0101), "steps of a grid of .01"


def test_the_bound_of_the_deviation_is_that_of_the_worst_distribution_in_the_band():
    # All samples 0: F may fall short of 1 by eps everywhere, which moves a mass of eps to 1.
    n = 4000
    eps = sqrt(log(200) / (2 * n))
    assert deviation_upper(np.zeros(n)) == pytest.approx(sqrt(eps))
    assert deviation_upper([0.0, 1.0]) == 0.5


def _score_bounds(random, draw, n, alpha):
    scores = draw(random, n)
    return mean_upper(scores, alpha), deviation_upper(scores, alpha), tail_upper(scores, 0.5, alpha)


@pytest.mark.parametrize(
    "draw, truth",
    [
        (lambda random, n: (random.random(n) < 0.3).astype(float), (0.3, sqrt(0.21), 0.3)),
        (lambda random, n: random.random(n), (0.5, sqrt(1 / 12), 0.5)),
        (lambda random, n: random.random(n) ** 2, (1 / 3, sqrt(4 / 45), 1 - sqrt(0.5))),
    ],
    ids=["leak or none", "uniform", "squares"],
)
def test_bounds_of_scores_fail_less_often_than_alpha(draw, truth):
    random, alpha, trials = np.random.default_rng(5), 0.1, 1000
    found = np.array([_score_bounds(random, draw, 25, alpha) for _ in range(trials)])
    assert ((found < truth).mean(axis=0) <= alpha).all()


@pytest.mark.parametrize("p", [0.01, 0.2, 0.7])
def test_clopper_pearson_fails_less_often_than_alpha_and_not_much_less(p):
    leaks = np.random.default_rng(6).binomial(200, p, 4000)
    bound = {count: binomial_upper(count, 200, 0.1) for count in set(leaks.tolist())}
    failures = np.mean([bound[count] < p for count in leaks.tolist()])
    assert failures <= 0.1
    assert failures > 0.02 or p == 0.01, "discrete counts make it wide, but not that wide"


def test_simultaneous_bounds_all_hold():
    """40 questions that leak with probability .2: in most rounds the bound of some question fails, the
    simultaneous ones seldom."""
    leaks = np.random.default_rng(7).binomial(32, 0.2, (500, 40))
    rates = []
    for alpha in (0.1, simultaneous(0.1, 40)):
        bound = np.array([binomial_upper(count, 32, alpha) for count in range(33)])
        rates.append((bound[leaks] < 0.2).any(axis=1).mean())
    single, together = rates
    assert single > 0.5 and together <= 0.1


def test_no_sample_has_no_bound():
    assert binomial_upper(0, 0) is None
    assert all(bound([]) is None for bound in BOUNDS_OF_SCORES)
    assert leak_at(0, 0, 1) is None


@pytest.mark.parametrize("alpha", [0, 1, -0.1, float("nan")])
def test_alpha_lies_between_0_and_1(alpha):
    for call in (
        lambda: binomial_upper(1, 3, alpha),
        lambda: simultaneous(alpha, 3),
        *(lambda bound=bound: bound([0.5], alpha) for bound in BOUNDS_OF_SCORES),
    ):
        with pytest.raises(ValueError, match="alpha"):
            call()


def test_scores_beyond_0_and_1_are_refused():
    with pytest.raises(ValueError, match="0, 1"):
        mean_upper([0.5, float("nan")])
    with pytest.raises(ValueError, match="0, 1"):
        tail_upper([1.5], 0.5)


def test_a_wide_alpha_takes_the_widest_proven_band():
    assert band_width(10, 0.9) == band_width(10, 0.5) == pytest.approx(sqrt(log(2) / 20))
