"""The name of a run folder that the user gave none."""

import re

import pytest

from unlearnkit.exec.config.reader import StrictConfig, resolve_settings
from unlearnkit.model.run.places import default_name, model_title


@pytest.mark.parametrize(
    "name, title",
    [
        ("files/models/fictional/target", "target"),
        ("files/results/demo/checkpoints", "demo"),
        ("files/results/demo/checkpoints/", "demo"),
        ("files/results/demo/checkpoints/best", "demo-best"),
        ("owner/Model-1.5B", "Model-1.5B"),
        ("a/my model (new)", "my-model--new-"),
        ("a/.hidden", "hidden"),
        ("a/" + "x" * 300, "x" * 100),
    ],
)
def test_a_model_is_called_by_its_own_name(name, title):
    assert model_title(name) == title


def test_what_is_measured_is_named_after_the_model_and_what_is_trained_after_the_method():
    name = lambda **flags: default_name(resolve_settings(StrictConfig(), [], flags, {}))
    stamp = r"-Fictional_forget10-\d{8}-\d{6}"
    assert re.fullmatch(f"target{stamp}", name())
    assert re.fullmatch(rf"NPO\+FT{stamp}", name(**{"unlearn.unlearn_method": "NPO+FT"}))
