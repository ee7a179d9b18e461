"""Stop rules as config texts."""

import pytest

from unlearnkit.core.files import UserError
from unlearnkit.model.settings.stop_rules import StopRule, stop_rule_text, stop_rules


def test_rules_are_read_by_name_and_written_in_one_spelling():
    assert stop_rules(("kl=0.010", " holdout = 5e-2")) == {
        "kl": StopRule("kl", 0.01),
        "holdout": StopRule("holdout", 0.05),
    }
    assert stop_rule_text("kl = 1e-2") == stop_rule_text("kl=0.01") == "kl=0.01"
    assert stop_rules(None) == {}


@pytest.mark.parametrize(
    "text, told",
    [
        ("kl", "kl needs a level"),
        ("kl=", "'' is not a number"),
        ("kl=low", "'low' is not a number"),
        ("kl=0", "above 0"),
        ("kl=inf", "above 0"),
        ("kl=nan", "above 0"),
        ("holdout=1", "above 0 and below 1"),
        ("hodlout=0.1", "did you mean holdout"),
        ("", "the rules are kl, kl_neutral, holdout"),
        (5, "the rules are kl, kl_neutral, holdout"),
        ("kl_neutral=0", "the level of kl_neutral must be a number above 0"),
    ],
)
def test_what_is_no_rule_is_refused_with_the_reason(text, told):
    with pytest.raises(UserError, match=told):
        stop_rules((text,))
