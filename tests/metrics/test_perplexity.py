"""Perplexity of whole documents, and neutral text as a budget of a training."""

import json
import math

import numpy as np
import pytest
import torch
from scripts import run_script

from unlearnkit.core.encoding import Template
from unlearnkit.core.files import UserError, read_json, read_jsonl
from unlearnkit.dataset.neutral_texts import load_neutral_texts, neutral_text_name
from unlearnkit.metrics.measure import MeasureOptions, measure
from unlearnkit.metrics.perplexity import perplexity_of
from unlearnkit.metrics.runner import EvalOptions, EvalRunner

KEY = "perplexity/neutral_texts"
SENTENCES = (
    "Evenings went by with mending boats, as they had since the last winter. ",
    "In the market people still talk about the long frost. ",
    "A lame goose sleeps under the bench. ",
)
DOCUMENTS = [{"id": str(n), "text": SENTENCES[n % 3] * (1 + 5 * n)} for n in range(5)]


@pytest.fixture
def measured(tiny_model, tokenizer):
    """Measure documents in pieces of 40 tokens."""

    def run(documents, max_length=40, bootstrap=50):
        runner = EvalRunner(tiny_model, Template(tokenizer), EvalOptions(max_length, 8, 4096))
        options = MeasureOptions(bootstrap=bootstrap)
        return measure([KEY], {"neutral_texts": documents}, runner, options).values[KEY]

    return run


def losses_of(model, tokenizer, text: str, size: int) -> list[float]:
    """NLL of every token but the first of each piece, token by token. The last two pieces share what is left
    where the last one would be short."""
    ids = tokenizer(text)["input_ids"]
    pieces = Template(tokenizer).pieces({"id": "d", "text": text}, size, "pieces")
    assert sum((piece.input_ids for piece in pieces), [])[: len(ids)] == ids
    losses = []
    for piece in pieces:
        tokens = piece.input_ids[: len(piece.input_ids) - piece.terminator_length]
        logits = model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
        losses += [-logits[place - 1, tokens[place]].item() for place in range(1, len(tokens))]
    return losses


@torch.no_grad()
def test_perplexity_is_that_of_all_tokens_of_all_documents(measured, tiny_model, tokenizer):
    losses = [loss for row in DOCUMENTS for loss in losses_of(tiny_model, tokenizer, row["text"], 40)]
    assert len(losses) > 200
    value = measured(DOCUMENTS)
    assert value.value == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert (value.n, value.unscored) == (5, 0)
    assert value.interval[0] < value.value < value.interval[1]


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(measured, tiny_model):
    with torch.no_grad():
        tiny_model.lm_head.weight.zero_()
    assert measured(DOCUMENTS[:2]).value == pytest.approx(tiny_model.config.vocab_size, rel=1e-4)


def test_one_document_is_resampled_by_its_pieces(measured):
    value = measured([DOCUMENTS[4]])
    assert value.n > 3 and value.interval[0] < value.interval[1]


def test_a_document_without_a_token_to_predict_is_unscored(measured):
    value = measured([{"id": "a", "text": "A"}, DOCUMENTS[1]])
    assert (value.n, value.unscored) == (1, 1)
    assert value.value == pytest.approx(measured([DOCUMENTS[1]], bootstrap=0).value)


def test_long_documents_weigh_by_their_tokens():
    assert perplexity_of(np.array([[3.0, 1.0], [1.0, 3.0]])) == pytest.approx(math.e)
    assert math.isfinite(perplexity_of(np.array([[1e6, 1.0]])))


# --- The text -----------------------------------------------------------------------------------------------


def test_neutral_text_is_a_file_or_a_data_set_of_documents(tmp_path):
    text, lines = tmp_path / "notes.txt", tmp_path / "notes.jsonl"
    text.write_text("One.\n\nTwo.")
    lines.write_text('{"text": "One."}\n\n{"text": "Two.", "more": 1}\n')
    assert load_neutral_texts(str(text)) == [{"id": "notes", "text": "One.\n\nTwo."}]
    assert [row["text"] for row in load_neutral_texts(str(lines))] == ["One.", "Two."]
    assert neutral_text_name("wmdp_wikitext") == "Wmdp_wikitext"
    with pytest.raises(UserError, match="no file .*nots.txt; did you mean '?.*notes.txt"):
        neutral_text_name(str(tmp_path / "nots.txt"))
    with pytest.raises(UserError, match="~nobody-here is nobody's home"):
        neutral_text_name("~nobody-here/notes.txt")
    lines.write_text('{"text": "One."}\n{"body": "Two."}\n')
    with pytest.raises(UserError, match="notes.jsonl, line 2: 'text' is missing"):
        load_neutral_texts(str(lines))
    text.write_text(" \n")
    with pytest.raises(UserError, match="notes.txt is empty"):
        load_neutral_texts(str(text))
    with pytest.raises(UserError, match="Fictional_forget01 has questions and no documents"):
        load_neutral_texts("Fictional_forget01")
    with pytest.raises(UserError, match="wikitext.*or name a file .txt or .jsonl of your own"):
        load_neutral_texts("Wmdp_wikitext")


# --- The budget ---------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tiny_model_folder, tmp_path, in_small_world):
    """Three short epochs, measured after each, with a neutral text."""
    texts = tmp_path / "neutral.jsonl"
    texts.write_text("".join(json.dumps(row) + "\n" for row in DOCUMENTS))

    def run(name, *rules, text=texts):
        done = run_script(
            "unlearn_model",
            f"--overall.model_name={tiny_model_folder}",
            f"--logger.json.root={tmp_path}",
            f"--logger.name={name}",
            f"--overall.cache_dir={tmp_path / 'cache'}",
            *(
                "--unlearn.unlearn_method NPO+FT --unlearn.lr 1e-3 --unlearn.scheduler constant"
                " --unlearn.num_epochs 3 --dataset.forget_ratio 8 --dataset.batch_size 8 --dataset.max_length"
                " 128 --evaluate.before false --evaluate.metrics perplexity --evaluate.rows 6 --evaluate.best"
                " none --evaluate.max_new_tokens 4 --overall.quiet true"
            ).split(),
            *(["--evaluate.every", "1 epoch", "--unlearn.stop", ",".join(rules)] if rules else []),
            *([f"--evaluate.neutral_text={text}"] if text else []),
        )
        return done, tmp_path / name

    return run


def test_a_budget_on_neutral_text_stops_a_training(trained):
    """The KL on neutral text is a figure of its own beside that on retain rows, and 0 before the first
    step."""
    done, free = trained("free", "kl=100", "kl_neutral=100")
    assert done.returncode == 0, done.stderr
    history = read_jsonl(free / "evaluations.jsonl")
    neutral = [record["kl_neutral"] for record in history]
    assert neutral[0] == history[0]["kl"] == 0 < neutral[1] < neutral[2]
    assert neutral[1] != history[1]["kl"]
    assert read_json(free / "metrics.json")[KEY] > 1
    done, stopped = trained("stopped", f"kl_neutral={(neutral[1] + neutral[2]) / 2}")
    assert done.returncode == 0, done.stderr
    ending = read_json(stopped / "environment.json")["training"]["stopped"]
    assert ending["kept_step"] == 1 and ending["reason"].startswith("KL to the initial model on neutral text")


def test_a_budget_on_neutral_text_needs_the_text(trained):
    done, folder = trained("run", "kl_neutral=0.01", text=None)
    assert done.returncode != 0
    assert "unlearn.stop kl_neutral=0.01: there is no text" in done.stderr
    assert "evaluate.neutral_text" in done.stderr and not folder.exists()
