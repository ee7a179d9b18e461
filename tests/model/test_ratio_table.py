"""Where the truth ratios of runs lie beside the retain model's."""

from types import SimpleNamespace

import pytest

from unlearnkit.metrics.ks_test import ks_test
from unlearnkit.model.report.ratio_table import largest_gap, ratio_table
from unlearnkit.model.report.report_charts import Material


def material(retain, *runs) -> Material:
    found = [SimpleNamespace(samples=_samples(values)) for values in runs]
    return Material(found, retain_samples=_samples(retain))


def _samples(values) -> dict:
    return {"forget": [{"log_truth_ratio": value} for value in values]}


def test_the_gap_is_the_distance_of_the_test():
    own, others = [0.1, 0.4, 0.4, 0.9], [0.2, 0.5, 0.7, 0.8, 1.0]
    value, mine, theirs = largest_gap(own, others)
    assert (value, mine, theirs) == (0.4, 0.75, 0.2)
    assert abs(mine - theirs) == pytest.approx(ks_test(own, others).statistic)


def test_seeds_are_taken_together_and_the_part_that_is_off_is_named():
    text = ratio_table({"a": material([0.0, 1.0, 2.0, 3.0], [-2.0, -1.0], [-1.5, 0.5])})
    assert text.splitlines()[2] == "| retain model | 0.30 | 1.50 | 2.70 |  |"
    assert text.splitlines()[3].endswith("| -1.00: 75 % of its rows, 0 % of the retain model's |")


def test_without_a_retain_model_or_ratios_there_is_none():
    assert ratio_table({"a": material([], [1.0])}) == ""
    assert ratio_table({"a": material([1.0], [])}) == ""
