import pytest
import torch

from unlearnkit.core.files import UserError
from unlearnkit.unlearn import FORGET, compose, parse_method
from unlearnkit.unlearn.method import method_names


@pytest.mark.parametrize(
    "text, name",
    [
        ("NPO+FT", "NPO+FT"),
        ("npo+kl", "NPO+KL"),
        ("GradDiff", "GA+FT"),
        ("grad_diff", "GA+FT"),
        ("GradAscent", "GA"),
        ("npo_gdr", "NPO+FT"),
        ("GA+GDR", "GA+FT"),
        ("FT", "FT"),
        ("origin", "origin"),
        ("SimNPO_GradDiff", "SimNPO+FT"),
        ("IdkDPO+KLR", "DPO+KL"),
        ("CE-U", "CEU"),
        ("task_vector", "TV"),
        ("whp", "WHP"),
        ("l1_sparse", "FT+L1"),
        ("KL", "KL"),
        ("npo+ft+sam", "NPO+FT+SAM"),
        ("NPO+L1+FT", "NPO+FT+L1"),
        ("GA+KL+ILU+L1+WA", "GA+KL+ILU+L1+WA"),
    ],
)
def test_names_and_aliases(text, name):
    assert parse_method(text).name == name


def test_fine_tuning_has_no_forget_part():
    method = parse_method("FT")
    assert method.forget is None
    assert set(method.sections) == {"unlearn.retain.FT"}
    assert method.trains


def test_origin_trains_nothing():
    assert not parse_method("origin").trains


@pytest.mark.parametrize(
    "text, reason",
    [
        ("PDU+FT", "retain term of its own"),
        ("TV+FT", "never paired"),
        ("WHP+L1", "never paired"),
        ("origin+SAM", "cannot be combined"),
        ("FT+SAM", "there is none"),
    ],
)
def test_what_cannot_stand_together_is_refused_with_the_reason(text, reason):
    with pytest.raises(UserError, match=reason):
        parse_method(text)


@pytest.mark.parametrize(
    "text, near", [("NPO+TF", "NPO\\+FT"), ("NOP", "NPO"), ("origin+FT", "origin"), ("FT+FT", "FT")]
)
def test_wrong_names_are_answered_with_near_ones(text, near):
    with pytest.raises(UserError, match=near):
        parse_method(text)


def test_every_listed_method_parses_and_every_objective_is_in_some_method():
    methods = [parse_method(name) for name in method_names()]
    assert {m.forget for m in methods if m.forget} == set(FORGET)


def test_a_side_asks_every_objective_that_has_terms_of_it(tiny_model, golden_batches):
    """CL with the retain rows in its mean has a retain term without a retain objective."""
    parsed = parse_method("CL")
    composition = compose(parsed, {"unlearn.CL": FORGET["CL"](batch="concat")}, forget_weight=0.5, gamma=3.0)
    batch = {"alternate": golden_batches["forget"], "retain": golden_batches["retain"]}
    both = composition.terms(tiny_model, batch, None)
    forget, retain = (composition.terms(tiny_model, batch, None, side) for side in ("forget", "retain"))
    assert set(both) == {"refusal_nll", "retain_nll"}
    assert set(forget) == {"refusal_nll"}
    assert set(retain) == {"retain_nll"}
    assert (forget["refusal_nll"].weight, retain["retain_nll"].weight) == (0.5, 3.0)
    assert torch.equal(retain["retain_nll"].term.total, both["retain_nll"].term.total)


@pytest.mark.parametrize(
    "text, meant",
    [
        ("NPO_FT", "NPO+FT"),
        ("npo-ft-sam", "NPO+FT+SAM"),
        ("SimNPO FT", "SimNPO+FT"),
        ("Grad_Ascent", "GA"),
        ("NPO+FTT", "NPO+FT or"),
        ("NPOFT", "NPO+FT or"),
        ("NPOO", "NPO or"),
    ],
)
def test_a_wrong_method_is_answered_with_the_nearest_spelling(text, meant):
    with pytest.raises(UserError) as error:
        parse_method(text)
    assert f"unknown method {text!r}; did you mean {meant}" in f"{error.value}"


def test_a_method_that_is_like_no_other_is_answered_with_the_parts_there_are():
    with pytest.raises(UserError, match="there are .*NPO.*, and FT, .* alone or behind one") as error:
        parse_method("XYZ")
    assert len(str(error.value)) < 300
