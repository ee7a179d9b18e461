"""Declarations of metrics: what must be declared, and the page made from them."""

import re
from dataclasses import replace

import pytest

from unlearnkit.metrics import METRICS, families
from unlearnkit.metrics.metrics_page import by_declaration, render, summary
from unlearnkit.metrics.spec import ARROWS, About, metric

WHOLE = About(
    formula="words, mean over rows", range="at least 0", blind_spot="meaning", source="this project"
)


def register(about):
    metric("forget/unheard_of", good="down", about=about)(lambda inputs: [])


@pytest.mark.parametrize("part", ["formula", "range", "blind_spot", "source"])
@pytest.mark.parametrize("text", ["", " "])
def test_a_metric_without_a_part_of_its_declaration_is_refused(part, text):
    with pytest.raises(ValueError, match=f"metric forget/unheard_of: about lacks {part}$"):
        register(replace(WHOLE, **{part: text}))
    assert "forget/unheard_of" not in METRICS


def test_all_parts_that_are_missing_are_named_at_once():
    with pytest.raises(ValueError, match="about lacks range, blind_spot, source"):
        register(About(formula="words"))


def test_a_declaration_in_one_string_is_refused():
    with pytest.raises(ValueError, match="about must be an About, not 'words; at least 0'"):
        register("words; at least 0")


def test_how_other_toolkits_differ_may_be_unknown():
    try:
        register(WHOLE)
        assert METRICS["forget/unheard_of"].about is WHOLE
    finally:
        METRICS.pop("forget/unheard_of", None)


def test_the_page_has_every_metric_once_with_its_direction():
    listed = re.findall(r"`([^`]+)` ([↑↓])", render())
    assert sorted(listed) == sorted((key, ARROWS[found.good]) for key, found in METRICS.items())


def test_the_page_has_every_part_of_every_declaration():
    page = render().replace("\\|", "|").replace("\\<", "<")
    for key, found in METRICS.items():
        assert all(text in page for text in vars(found.about).values()), key


def test_one_figure_on_several_row_sets_is_one_row():
    (about,) = {METRICS[f"{rows}/closed"].about for rows in ("forget", "retain", "arithmetic")}
    assert by_declaration("health")[about] == ["forget/closed", "retain/closed", "arithmetic/closed"]


@pytest.mark.parametrize("family", families())
def test_a_family_says_what_it_measures(family):
    assert len(summary(family)) > 20
    assert f"| [{family}](#{family}) | {summary(family)} |" in render()


@pytest.mark.parametrize("key", METRICS)
def test_a_source_is_a_paper_a_code_base_or_this_project(key):
    known = r"arXiv:\d{4}\.\d{5}|this project|OpenUnlearning|code \("
    assert re.search(known, METRICS[key].about.source), METRICS[key].about.source
