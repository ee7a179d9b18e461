"""Means over runs, and intervals over runs and rows."""

import pytest

from unlearnkit.core.files import write_json, write_jsonl
from unlearnkit.model.report.grid_table import aggregate, markdown, pooled_interval


def named(values) -> dict:
    return {str(number): value for number, value in enumerate(values)}


def test_the_interval_of_one_run_is_the_rows_and_of_many_alike_runs_too():
    rows = [0.0, 1.0] * 50
    low, high = pooled_interval([named(rows)])
    assert 0.39 < low < 0.43
    assert 0.57 < high < 0.61
    assert pooled_interval([named([1.0] * 30)] * 3) == (1.0, 1.0)
    assert pooled_interval([named([None, None])]) is None
    assert pooled_interval([]) is None


def test_runs_that_differ_widen_the_interval():
    alike = pooled_interval([named([0.0, 1.0] * 50)] * 3)
    apart = pooled_interval([named([0.0] * 100), named([0.0, 1.0] * 50), named([1.0] * 100)])
    assert apart[1] - apart[0] > 2 * (alike[1] - alike[0])


def test_rows_without_a_value_are_left_out():
    assert pooled_interval([named([1.0, None, 1.0])]) == (1.0, 1.0)


def test_runs_on_other_rows_draw_their_own():
    low, high = pooled_interval([named([0.0, 1.0] * 50), {f"other{k}": float(k % 2) for k in range(40)}])
    assert 0.3 < low < 0.5 < high < 0.7


def test_a_table_with_intervals_has_them_where_there_are_rows(tmp_path):
    folders = []
    for seed, values in enumerate(([0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0])):
        folder = tmp_path / str(seed)
        write_json(folder / "metrics.json", {"reasoning/rt_ua": sum(values) / 4})
        write_jsonl(
            folder / "samples/forget.jsonl", [{"id": str(i), "rt_ua": v} for i, v in enumerate(values)]
        )
        folders.append(folder)
    runs = [{"reasoning/rt_ua": 0.75, "seconds": 3.0}, {"reasoning/rt_ua": 0.5, "seconds": 5.0}]
    found = aggregate("r", runs, ["reasoning/rt_ua", "seconds"], folders=folders)
    low, high = found.cells["reasoning/rt_ua"].interval
    assert low < 0.625 < high
    assert found.cells["seconds"].interval is None
    text = markdown([found], ["reasoning/rt_ua", "seconds"])
    assert f"0.625 [{low:.3f}, {high:.3f}]" in text
    assert "4.000 \u00b1 1.414" in text
    assert aggregate("r", runs, ["reasoning/rt_ua"]).cells["reasoning/rt_ua"].spread == pytest.approx(
        0.1768, abs=1e-3
    )
