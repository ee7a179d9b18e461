"""Scores and selection: golden values, the toy closed form, and a plain sort as the judge."""

import json
import math

import pytest
import torch
from conftest import GOLDEN

from unlearnkit.core.files import UserError
from unlearnkit.unlearn.mask import SCORES, select
from unlearnkit.unlearn.mask.scores import Statistics

INPUTS = json.loads((GOLDEN / "objectives/inputs/mask_inputs.json").read_text())
EXPECTED = json.loads((GOLDEN / "objectives/expected/masks.json").read_text())["expected"]
RATIOS = ["0.2", "0.5", "0.8", "0.95"]


def tensors(table: dict) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in table.items()}


def golden_scores(score: str) -> dict[str, torch.Tensor]:
    theta, forget, retain = (tensors(INPUTS[key]) for key in ("theta", "g_f", "g_r"))
    return {
        name: (
            SCORES[score].compute(Statistics(name, theta[name], forget[name], retain[name], mu=INPUTS["mu"]))
        )
        for name in theta
    }


@pytest.mark.parametrize("score", ["wagle", "gradient", "magnitude"])
def test_golden_scores_and_masks(score):
    """The golden scores are negative, smallest first."""
    ours = golden_scores(score)
    for name, theirs in tensors(EXPECTED[score]["score"]).items():
        torch.testing.assert_close(-ours[name], theirs, rtol=1e-9, atol=1e-12)
    for ratio in RATIOS:
        masks = select({name: value.float() for name, value in ours.items()}, float(ratio))
        assert {name: mask.tolist() for name, mask in masks.items()} == EXPECTED[score]["masks"][ratio]


@pytest.mark.parametrize("ratio", RATIOS)
def test_golden_ties_go_to_the_first(ratio):
    masks = select({name: -value.float() for name, value in tensors(INPUTS["ties"]).items()}, float(ratio))
    assert {name: mask.tolist() for name, mask in masks.items()} == EXPECTED["ties"]["masks"][ratio]


@pytest.mark.parametrize("ratio", RATIOS)
def test_golden_wanda(ratio):
    weight, inputs = (torch.tensor(INPUTS["wanda"][key], dtype=torch.float64) for key in ("weight", "inputs"))
    statistics = Statistics("w", weight, inputs=(inputs**2).sum((0, 1)) / len(inputs))
    score = SCORES["wanda"].compute(statistics)
    torch.testing.assert_close(
        score, torch.tensor(EXPECTED["wanda"]["score"], dtype=torch.float64), rtol=1e-9, atol=1e-12
    )
    assert (
        select({"w": score.float()}, float(ratio), "row")["w"].tolist() == EXPECTED["wanda"]["masks"][ratio]
    )


def test_the_toy_closed_form_and_the_limits_of_mu():
    s = Statistics(
        "w", torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0]), torch.tensor([0.1, -0.2]), mu=0.1
    )
    torch.testing.assert_close(SCORES["wagle"].compute(s), torch.tensor([0.5, 3.0]))
    s.mu = 1e30
    torch.testing.assert_close(SCORES["wagle"].compute(s), SCORES["snip"].compute(s))
    s.mu = 1e-12
    torch.testing.assert_close(SCORES["wagle"].compute(s) * s.mu, (s.forget * s.retain).abs())
    assert SCORES.resolve("snip_advanced") == "wagle"


def test_random_is_a_function_of_seed_and_name():
    def draw(name, seed):
        return SCORES["random"].compute(Statistics(name, torch.zeros(50), seed=seed))

    assert torch.equal(draw("a", 1), draw("a", 1))
    assert not torch.equal(draw("a", 1), draw("a", 2))
    assert not torch.equal(draw("a", 1), draw("b", 1))


def by_sorting(scores: dict, ratio: float) -> list[bool]:
    flat = torch.cat([score.flatten() for score in scores.values()])
    chosen = torch.zeros(len(flat), dtype=torch.bool)
    chosen[flat.sort(descending=True, stable=True).indices[: math.floor(len(flat) * ratio + 1e-9)]] = True
    return chosen.tolist()


@pytest.mark.parametrize("kind", ["normal", "few values", "tiny", "all equal", "zeros", "wide"])
def test_streaming_selects_what_a_stable_sort_selects(kind, monkeypatch):
    monkeypatch.setattr("unlearnkit.unlearn.mask.selection.CHUNK", 97)
    generator = torch.Generator().manual_seed(3)
    make = {
        "normal": lambda n: torch.randn(n, generator=generator).abs(),
        "few values": lambda n: torch.randint(0, 4, (n,), generator=generator) / 4,
        "tiny": lambda n: torch.rand(n, generator=generator) * 1e-42,
        "all equal": lambda n: torch.full((n,), 0.3),
        "zeros": torch.zeros,
        "wide": lambda n: 10 ** (torch.rand(n, generator=generator) * 60 - 30),
    }[kind]
    scores = {"a": make(600).reshape(20, 30), "b": make(101), "c": make(1)}
    for ratio in (0, 1 / 702, 0.05, 0.5, 0.8, 0.999, 1):
        masks = select(scores, ratio)
        assert torch.cat([mask.flatten() for mask in masks.values()]).tolist() == by_sorting(scores, ratio)


def test_masks_are_nested_and_scale_changes_nothing():
    scores = {"a": torch.rand(40, 25), "b": torch.rand(17)}
    smaller, larger, scaled = (
        select(scores, 0.2),
        select(scores, 0.6),
        select({n: s * 8 for n, s in scores.items()}, 0.2),
    )
    assert all((smaller[n] <= larger[n]).all() and torch.equal(smaller[n], scaled[n]) for n in scores)


def test_scopes_count_for_themselves():
    scores = {"a": torch.rand(7, 10) + 5, "b": torch.rand(9)}
    tensor, row = select(scores, 0.3, "tensor"), select(scores, 0.3, "row")
    assert (int(tensor["a"].sum()), int(tensor["b"].sum())) == (21, 2)
    assert row["a"].sum(1).tolist() == [3] * 7
    assert int(row["b"].sum()) == 3


@pytest.mark.parametrize("wrong", [math.nan, -1.0])
def test_a_score_that_is_none_is_refused_by_name(wrong):
    with pytest.raises(UserError, match="layer.b"):
        select({"layer.a": torch.ones(3), "layer.b": torch.tensor([1.0, wrong])}, 0.5)
