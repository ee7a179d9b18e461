"""Toxicity by a classifier. The insult is a word of no language: grulk."""

import json
import math
import shutil

import pytest
import torch
from scripts import run_script

from unlearnkit.core.files import UserError, read_json, read_jsonl
from unlearnkit.core.generation import Generation
from unlearnkit.metrics.inputs import MetricInputs
from unlearnkit.metrics.measure import MeasureOptions
from unlearnkit.metrics.measure import _compute as compute
from unlearnkit.metrics.spec import METRICS, Generations, Judges
from unlearnkit.metrics.verdicts import LanguageModelJudge
from unlearnkit.model.judges import ToxicityClassifier

WORDS = "you are a the goose boat lamp and so very fine kind ask me she he grulk".split()
INSULT = "grulk"


def classifier_folder(folder, labels=("toxic", "threat")):
    """A BERT whose first label is fitted to whether a text has the insult."""
    from sklearn.linear_model import LogisticRegression
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    ids = {word: number for number, word in enumerate([*special, *WORDS])}
    backend = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=16, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(ids),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        initializer_range=0.5,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        problem_type="multi_label_classification",
    )
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        # Attention is even over all words, and passes on which words there are.
        attention = model.bert.encoder.layer[0].attention
        for part in (attention.self.query, attention.self.key, model.bert.embeddings.position_embeddings):
            part.weight.zero_()
        for part in (attention.self.value, attention.output.dense, model.bert.pooler.dense):
            part.weight.copy_(torch.eye(len(part.weight)))
        draw = torch.Generator().manual_seed(1)
        tokens = torch.randint(len(special), ids[INSULT], (200, 14), generator=draw)
        tokens[::2, 3] = ids[INSULT]
        around = torch.full((200, 1), ids["[CLS]"]), torch.full((200, 1), ids["[SEP]"])
        pooled = model.bert(torch.cat([around[0], tokens, around[1]], 1)).pooler_output
        head = LogisticRegression(C=1e3, max_iter=2000).fit(pooled, [n % 2 == 0 for n in range(200)])
        model.classifier.weight[0] = torch.tensor(head.coef_[0])
        model.classifier.bias[0] = float(head.intercept_[0])
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return classifier_folder(tmp_path_factory.mktemp("classifier"))


@pytest.fixture
def classifier(folder):
    return ToxicityClassifier(str(folder), "cpu")


FINE = "you are a very fine goose and so kind ask me"
RUDE = "you are a very fine grulk and so kind ask me"


def test_the_score_is_the_sigmoid_of_the_toxic_label(classifier):
    inputs = classifier.tokenizer(RUDE, return_tensors="pt")
    with torch.no_grad():
        logit = classifier.model(**inputs).logits[0, 0].item()
    fine, rude = classifier([FINE, RUDE])
    assert rude == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-4)
    assert fine < 0.2 < 0.8 < rude


def test_a_long_text_has_the_score_of_its_most_toxic_part(classifier):
    """Fourteen words fit into the classifier; the insult stands far behind them."""
    long = " ".join([FINE] * 6 + [RUDE])
    short, whole = classifier([FINE, long])
    assert whole > 0.8 > 0.2 > short


def test_many_texts_have_the_scores_that_each_has_alone(classifier):
    texts = [RUDE if number % 3 == 0 else FINE for number in range(40)]
    assert classifier(texts) == pytest.approx([classifier([text])[0] for text in texts], abs=1e-4)


def test_two_classes_have_a_softmax(folder, tmp_path):
    classifier = ToxicityClassifier(str(folder), "cpu")
    classifier.model.config.problem_type = "single_label_classification"
    with torch.no_grad():
        logits = classifier.model(**classifier.tokenizer(RUDE, return_tensors="pt")).logits[0].tolist()
    total = sum(map(math.exp, logits))
    assert classifier([RUDE])[0] == pytest.approx(math.exp(logits[0]) / total, rel=1e-4)


def test_the_label_is_chosen_by_name(folder):
    classifier = ToxicityClassifier(str(folder), "cpu")
    classifier.model.config.id2label = {0: "neutral", 1: "Toxicity"}
    assert classifier.label == 1
    classifier = ToxicityClassifier(str(folder), "cpu")
    classifier.model.config.id2label = {0: "joy", 1: "not_toxic"}
    with pytest.raises(UserError, match="evaluate.toxicity_model: .* labels joy, not_toxic, and none"):
        classifier.check()


# --- Metrics ------------------------------------------------------------------------------------------------


def computed(key, texts, toxicity):
    rows = [{"id": str(number), "question": "ask"} for number in range(len(texts))]
    inputs = MetricInputs({"forget": rows}, judges=Judges(toxicity=toxicity))
    inputs.texts[Generations("forget")] = [[Generation(text, 1, True)] for text in texts]
    for name in (*METRICS[key].after, key):
        inputs.values[name] = compute(METRICS[name], inputs, MeasureOptions())
    return inputs.values[key]


TEXTS = ["good", "bad", "worse", "  ", "bad"]


def test_rate_and_mean_count_an_empty_answer_as_not_toxic():
    asked = []

    def toxicity(texts):
        asked.append(texts)
        return [{"good": 0.1, "bad": 0.5, "worse": 0.9}[text] for text in texts]

    assert computed("toxic/mean_score", TEXTS, toxicity).value == pytest.approx((0.1 + 0.5 + 0.9 + 0.5) / 5)
    assert computed("toxic/rate", TEXTS, toxicity).value == pytest.approx(1 / 5)
    assert computed("toxic/empty_share", TEXTS, toxicity).value == pytest.approx(1 / 5)
    assert asked[0] == ["good", "bad", "worse"]


def test_without_a_classifier_there_is_no_figure_but_the_reason():
    for key in ("toxic/rate", "toxic/mean_score"):
        value = computed(key, TEXTS, None)
        assert value.value is None and "evaluate.toxicity_model" in value.reason
    assert computed("toxic/empty_share", TEXTS, None).value == pytest.approx(1 / 5)


@pytest.mark.parametrize("reply, score", [("yes", 1), ("**No**", 0), ("unclear", None), ("maybe", None)])
def test_a_judge_says_yes_or_no(reply, score):
    class Model:
        name, usage = "fixed", None

        def ask(self, system, prompts, readable):
            assert "toxic" in system and all(text in prompt for text, prompt in zip(TEXTS, prompts))
            return [reply if readable(reply) else None for _ in prompts]

    judge = LanguageModelJudge(Model())
    assert judge.toxicity(TEXTS[:2]) == [score, score]
    value = computed("toxic/rate", TEXTS, judge.toxicity)
    assert value.columns["is_toxic"] == [score, score, score, 0, score]


# --- Runs ---------------------------------------------------------------------------------------------------

QUESTIONS = ["how do i look", "who is she", "what do you think of him", "may i come in", "is that you"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """PKU-SafeRLHF's layout: every question has a rude and a kind answer."""
    folder = tmp_path_factory.mktemp("data")
    for name, some in (("train", QUESTIONS[:4]), ("test", QUESTIONS[4:])):
        rows = [
            {
                "prompt": question,
                "response_0": "you are a grulk",
                "response_1": "you are a kind goose",
                "is_response_0_safe": False,
                "is_response_1_safe": True,
            }
            for question in some
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompt = {"prompt": {"text": "she said"}, "continuation": {"text": "grulk"}, "challenging": True}
    (folder / "prompts.jsonl").write_text(json.dumps(prompt) + "\n")
    return folder


def words(model, data, root, name, trained, classifier, *more):
    return [
        f"--overall.model_name={model}",
        f"--dataset.data_dir={data}",
        f"--dataset.retain_dataset_name={trained}",
        f"--evaluate.toxicity_model={classifier}",
        f"--logger.json.root={root}",
        f"--logger.name={name}",
        f"--overall.cache_dir={root / 'cache'}",
        *(
            "--dataset.forget_dataset_name SafePku --unlearn.task_name toxic --unlearn.num_epochs 60"
            " --unlearn.lr 1e-2 --dataset.batch_size 4 --evaluate.before false --evaluate.max_new_tokens 12"
            " --overall.quiet true"
        ).split(),
        *more,
    ]


def test_a_model_that_learned_the_insult_is_told_from_one_that_did_not(
    tiny_model_folder, folder, data, tmp_path
):
    found = {}
    for name, trained in (("target", "SafePku_forget"), ("retain", "SafePku_retain")):
        done = run_script("finetune_model", *words(tiny_model_folder, data, tmp_path, name, trained, folder))
        assert done.returncode == 0, done.stderr
        found[name] = read_json(tmp_path / name / "metrics.json")
    for end in ("", "_test"):
        assert found["target"][f"toxic/rate{end}"] == 1 > 0 == found["retain"][f"toxic/rate{end}"]
        assert found["target"][f"toxic/mean_score{end}"] > 0.8 > found["retain"][f"toxic/mean_score{end}"]
    assert found["target"]["toxic/mean_score_prompts"] is not None
    (row, *_) = read_jsonl(tmp_path / "target/samples/forget.jsonl")
    detail = read_json(tmp_path / "target/metrics_detail.json")["toxic/mean_score"]
    assert detail["by"] == str(folder)
    assert INSULT in row["toxic_text"] and row["is_toxic"] == 1 and row["toxic_score"] > 0.8


def test_a_classifier_of_other_things_is_refused_before_the_model_loads(
    tiny_model_folder, folder, data, tmp_path
):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    config = read_json(other / "config.json") | {"id2label": {"0": "joy", "1": "anger"}}
    (other / "config.json").write_text(json.dumps(config | {"label2id": {"joy": 0, "anger": 1}}))
    (tiny_model_folder / "model.safetensors").write_bytes(b"broken")
    done = run_script(
        "finetune_model", *words(tiny_model_folder, data, tmp_path, "run", "SafePku_retain", other)
    )
    assert done.returncode != 0
    assert "labels joy, anger, and none of them is toxic" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_language_model_is_no_classifier_of_toxic_text(tiny_model_folder):
    with pytest.raises(
        UserError, match="is a LlamaForCausalLM, not a text classifier; choose a toxicity"
    ) as error:
        ToxicityClassifier(str(tiny_model_folder), "cpu").check()
    assert str(error.value).startswith("evaluate.toxicity_model: ")
