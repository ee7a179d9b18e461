"""ROUGE on texts of any script."""

import random

import pytest
from rouge_score.rouge_scorer import RougeScorer

from unlearnkit.metrics.rouge import rouge1, rougeL

ENGLISH = "the cats were running quickly over mats and houses 1990 it's a well-known author's e-mail".split()


@pytest.mark.parametrize("text", ["安娜住在海边。", "Олег врач.", "เขาเป็นหมอ", "वह डॉक्टर है", "هو طبيب"])
def test_a_text_equals_itself(text):
    assert rougeL(text, text) == rouge1(text, text) == (1, 1, 1)


def test_what_is_not_english_counts():
    assert rougeL("Анна 1990", "Олег 1990").fmeasure == 0.5
    assert rougeL("安娜住在海边", "安娜住在山上").recall == pytest.approx(4 / 6)
    assert rougeL("Müller", "Möller").fmeasure == 0


@pytest.mark.parametrize("stem", [True, False])
def test_english_figures_are_those_of_the_package(stem):
    draw, theirs = random.Random(0), RougeScorer(["rougeL", "rouge1"], use_stemmer=stem)
    for _ in range(200):
        truth, text = (" ".join(draw.choices(ENGLISH, k=draw.randint(0, 12))) for _ in range(2))
        assert rougeL(truth, text, stem) == theirs.score(truth, text)["rougeL"]
        assert not stem or rouge1(truth, text) == theirs.score(truth, text)["rouge1"]
