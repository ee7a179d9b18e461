"""Continuations of passages: figures by hand and by the libraries, and identities."""

import math

import numpy as np
import pytest
import sacrebleu
import torch
from rouge_score.rouge_scorer import RougeScorer

from unlearnkit.core.encoding import Template
from unlearnkit.core.generation import Generation
from unlearnkit.metrics.copyright import FIGURES, TOKENS, common_characters
from unlearnkit.metrics.inputs import MetricInputs
from unlearnkit.metrics.measure import MeasureOptions, measure
from unlearnkit.metrics.memorization import longest_common_run
from unlearnkit.metrics.rouge import rougeL
from unlearnkit.metrics.runner import EvalOptions, EvalRunner
from unlearnkit.metrics.spec import METRICS, AnswerScore, Generations, select

TRUTH = "the old clock in the hall struck nine and nobody came down to wind it again"
TEXT = "the old clock in the tower struck ten and nobody came up to wind it"


def computed(name, truth, text, part="forget", ids=str.split):
    rows = f"{part}_passages"
    inputs = MetricInputs({rows: [{"id": "p", "prompt": "so", "gt": truth}]}, ids=ids)
    inputs.texts[Generations(rows, "prompt", most=TOKENS)] = [[Generation(text, 1, True)]]
    return METRICS[f"copyright/{part}_{name}"].compute(inputs).values[0]


def test_figures_by_hand():
    # In order: the old clock in the, struck, and nobody came, to wind it: 12 of 16 and of 15 words.
    assert computed("rougeL", TRUTH, TEXT) == pytest.approx(12 / 16)
    assert computed("rougeL_f1", TRUTH, TEXT) == pytest.approx(2 * 12 / (16 + 15))
    assert computed("lcs_chars", TRUTH, TEXT) == len("the old clock in the ")
    assert computed("lcs_tokens", TRUTH, TEXT) == len("the old clock in the".split())
    assert computed("verbatim_share", TRUTH, TEXT) == pytest.approx(5 / 16)


def test_figures_by_their_libraries():
    assert computed("bleu", TRUTH, TEXT) == pytest.approx(sacrebleu.sentence_bleu(TEXT, [TRUTH]).score / 100)
    assert computed("chrf", TRUTH, TEXT) == pytest.approx(sacrebleu.sentence_chrf(TEXT, [TRUTH]).score / 100)
    stemmed = RougeScorer(["rougeL"], use_stemmer=True).score(TRUTH, TEXT)["rougeL"]
    assert computed("rougeL", TRUTH, TEXT) == pytest.approx(stemmed.recall)


@pytest.mark.parametrize("name", FIGURES)
def test_the_true_text_scores_highest_and_no_text_lowest(name):
    best = {"lcs_chars": len(TRUTH), "lcs_tokens": len(TRUTH.split())}.get(name, 1)
    assert computed(name, TRUTH, TRUTH) == pytest.approx(best)
    assert computed(name, TRUTH, "") == 0


def test_line_breaks_do_not_part_a_copy():
    assert common_characters("one two\nthree", "one  two three") == len("one two three")


def by_hand(one, other):
    """The longest common run, by the lengths of the runs that end at each pair of places."""
    longest, before = 0, [0] * (len(other) + 1)
    for item in one:
        here = [0] + [before[k] + 1 if item == same else 0 for k, same in enumerate(other)]
        longest, before = max(longest, *here), here
    return longest


def test_the_longest_common_run_is_that_of_all_pairs_of_places():
    random = np.random.default_rng(0)
    for _ in range(100):
        one, other = ("".join(random.choice(list("ab c"), size)) for size in random.integers(0, 30, 2))
        assert longest_common_run(one, other) == by_hand(one, other)
    long = "a" * 500 + "b" + "c" * 500
    assert longest_common_run(long, long) == len(long)  # nothing is popular enough to be left out


def test_forgetting_goes_down_and_the_rest_stays():
    good = {key: METRICS[key].good for key in select(["copyright"])}
    assert {key for key, way in good.items() if way == "down"} == {
        *(f"copyright/forget_{name}" for name in FIGURES),
        "copyright/retain_perplexity",
        "copyright/holdout_perplexity",
    }


def test_perplexity_by_hand():
    inputs = MetricInputs({"forget_passages": [{}, {}, {}]})
    halves, eighths = (AnswerScore(np.log(np.full(3, p)), np.ones(3, bool), 0) for p in (1 / 2, 1 / 8))
    unscored = AnswerScore(np.empty(0), np.empty(0, bool), 0)
    inputs.scores["forget_passages", "text", ""] = [[halves], [unscored], [eighths]]
    found = METRICS["copyright/forget_perplexity"].compute(inputs)
    assert found.figure(*found.samples) == pytest.approx(4)  # the geometric mean of 2 and 8
    assert found.unscored == 1


def test_figures_of_a_model(tiny_model, tokenizer):
    """A model that writes the true text has all of it in common with it; its perplexity is that of its own
    loss."""
    runner = EvalRunner(tiny_model, Template(tokenizer), EvalOptions(256, 12, 4096))
    prompt = "Orlo went to the mill"
    row = {"id": "p", "prompt": prompt, "gt": "?", "text": f"{prompt} and back"}
    (written,) = runner.generations([row], Generations("forget_passages", "prompt", most=TOKENS))[0]
    rows = {"forget_passages": [row | {"gt": written.text}]}
    keys = ["copyright/forget_lcs_chars", "copyright/forget_rougeL_f1", "copyright/forget_perplexity"]
    values = measure(keys, rows, runner, MeasureOptions(bootstrap=0)).values
    truth = runner.cut(written.text, TOKENS)
    assert values[keys[0]].value == len(" ".join(truth.split())) > 0
    assert values[keys[1]].value == pytest.approx(rougeL(truth, written.text).fmeasure)
    ids = Template(tokenizer).encode({"id": "p", "text": row["text"]}).input_ids
    with torch.no_grad():
        loss = tiny_model(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item()
    assert values[keys[2]].value == pytest.approx(math.exp(loss), rel=1e-4)


def test_what_stands_behind_the_budget_does_not_count(tiny_model, tokenizer):
    runner = EvalRunner(tiny_model, Template(tokenizer), EvalOptions(256, 500, 4096))
    text = " ".join(f"word{number}" for number in range(300))
    beginning = runner.cut(text, TOKENS)
    assert len(beginning) < len(text)
    rows = {"forget_passages": [{"id": "p", "prompt": "so", "gt": text}]}
    inputs = MetricInputs(rows, cut=runner.cut, ids=runner.ids)
    inputs.texts[Generations("forget_passages", "prompt", most=TOKENS)] = [[Generation(beginning, 1, True)]]
    assert METRICS["copyright/forget_bleu"].compute(inputs).values == [pytest.approx(1)]
