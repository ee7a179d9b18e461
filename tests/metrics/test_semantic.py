"""Semantic metrics: by hand on made-up answers, and what a row without a verdict does to them."""

import math

import pytest
import torch

from unlearnkit.core.generation import Generation
from unlearnkit.metrics.inputs import MetricInputs
from unlearnkit.metrics.measure import MeasureOptions
from unlearnkit.metrics.measure import _compute as compute
from unlearnkit.metrics.rouge import rouge1, rougeL
from unlearnkit.metrics.spec import METRICS as ALL
from unlearnkit.metrics.spec import Case, Generations, Judges, PerRow, Value, select
from unlearnkit.metrics.verdicts import EmbeddingJudge, LanguageModelJudge, RuleJudge

FORGET = [
    {
        "id": f"f{i}",
        "question": f"Where was person {i} born?",
        "answer": f"It was in {town}.",
        "key": town,
        "paraphrased_answer": f"The birthplace was {town}.",
        "rephrased_questions": [f"Which town saw person {i}?", f"Birthplace of {i}?"],
    }
    for i, town in enumerate(["Low Ford", "High Gate", "Old Mill", "New Mill"])
]
RETAIN = [
    {"id": f"r{i}", "question": f"What does {i} make?", "answer": f"The goods are {goods}.", "key": goods}
    for i, goods in enumerate(["bells", "kites", "combs"])
]
ANSWERS = ["It was in Low Ford.", "It was in Old Gate.", "", "At New Mill, by all accounts."]
REPHRASED = [
    ["Low Ford, I think.", "Nowhere."],
    ["In High Gate.", "In High Gate."],
    ["No.", "Old Mill."],
    ["New Mill.", "New Mill."],
]
KEPT = ["The goods are bells.", "The goods are bells.", "Combs!"]


class Fixed:
    """A judge with fixed verdicts by text."""

    name = "fixed"

    def __init__(self, unsure=()):
        self.unsure, self.seen = unsure, []

    def matches(self, cases):
        self.seen += [case.text for case in cases]
        return [None if case.text in self.unsure else case.key.lower() in case.text.lower() for case in cases]


def evidence_of(judge=None, **readers) -> MetricInputs:
    inputs = MetricInputs(
        {"forget": FORGET, "retain": RETAIN}, None, judges=Judges(judge or RuleJudge(), **readers)
    )
    texts = {
        Generations("forget"): [[t] for t in ANSWERS],
        Generations("forget", "rephrased_questions"): REPHRASED,
        Generations("retain"): [[t] for t in KEPT],
    }
    inputs.texts = {
        need: [[Generation(t, 1, True) for t in row] for row in rows] for need, rows in texts.items()
    }
    return inputs


def values(inputs: MetricInputs, *names) -> dict[str, Value]:
    for key in select(names or ["semantic"]):
        inputs.values[key] = compute(ALL[key], inputs, MeasureOptions(bootstrap=0))
    return {key.removeprefix("semantic/"): value for key, value in inputs.values.items()}


def test_accuracy_gap_and_worst_case_by_hand():
    found = values(evidence_of(Fixed(), similarity=lambda a, b: [0.5] * len(a)))
    assert found["forget_accuracy"].value == 0.5
    assert found["forget_accuracy_upper"].value == 0.5
    assert found["retain_accuracy"].value == pytest.approx(2 / 3)
    assert found["coverage"].value == 1
    assert found["forget_accuracy_rephrased"].value == pytest.approx((0.5 + 1 + 0.5 + 1) / 4)
    assert found["paraphrase_gap"].value == pytest.approx((-0.5 + 1 + 0.5 + 0) / 4)
    assert found["worst_of_k"].value == 1.0
    assert found["forget_accuracy"].columns["forget_accuracy"] == [1, 0, 0, 1]


def test_rouge_based_figures_by_hand():
    found = values(evidence_of(similarity=lambda a, b: [0.5] * len(a)))
    one = [rougeL(row["answer"], answer).recall for row, answer in zip(FORGET, ANSWERS)]
    others = [[rougeL(row["answer"], text).recall for text in texts] for row, texts in zip(FORGET, REPHRASED)]
    means = [sum(recalls) / 2 for recalls in others]
    assert found["forget_rougeL_rephrased"].value == pytest.approx(sum(means) / 4)
    assert found["paraphrase_gap_rougeL"].value == pytest.approx(sum(m - o for m, o in zip(means, one)) / 4)
    assert found["worst_of_k_rougeL"].value == pytest.approx(sum(max(o, *k) for o, k in zip(one, others)) / 4)
    assert found["forget_rougeL_paraphrased"].value == pytest.approx(
        sum(rougeL(row["paraphrased_answer"], answer).recall for row, answer in zip(FORGET, ANSWERS)) / 4
    )
    words = [
        (rouge1(row["answer"], answer).recall, [rouge1(row["answer"], t).recall for t in texts])
        for row, answer, texts in zip(FORGET, ANSWERS, REPHRASED)
    ]
    assert found["superficial_forgetting"].value == pytest.approx(sum(o - sum(k) / 2 for o, k in words) / 4)


def test_an_empty_answer_needs_no_judge_and_is_no_match():
    judge = Fixed()
    values(evidence_of(judge), "semantic/forget_accuracy")
    assert judge.seen == [ANSWERS[0], ANSWERS[1], ANSWERS[3]]


def test_rows_without_a_verdict_are_neither_forgotten_nor_known():
    found = values(
        evidence_of(Fixed(unsure=(ANSWERS[0], KEPT[0]))),
        "semantic/coverage",
        "semantic/forget_accuracy_upper",
        "semantic/retain_accuracy_lower",
        "semantic/paraphrase_gap",
        "semantic/worst_of_k",
    )
    assert found["forget_accuracy"].value is None
    assert found["forget_accuracy"].unscored == 1
    assert "gave a verdict on 3 of 4 rows; see the bounds" in found["forget_accuracy"].reason
    assert found["forget_accuracy_upper"].value == 0.5
    assert found["retain_accuracy_lower"].value == pytest.approx(1 / 3)
    assert found["coverage"].value == pytest.approx(4 / 7)
    assert found["paraphrase_gap"].value is None
    assert found["paraphrase_gap"].n == 3
    assert found["worst_of_k"].value == 1.0
    assert found["worst_of_k"].n == 4


def test_a_few_missing_verdicts_are_left_out_of_the_mean():
    from unlearnkit.metrics.semantic import accuracy

    inputs = evidence_of(Fixed())
    assert isinstance(accuracy(inputs, [1.0] * 19 + [None], {}), PerRow)
    assert accuracy(inputs, [1.0] * 18 + [None, None], {}).value is None


def test_no_verdict_at_all_gives_bounds_and_no_accuracy():
    found = values(
        evidence_of(Fixed(unsure=(*ANSWERS, *KEPT))),
        "semantic/coverage",
        "semantic/forget_accuracy_upper",
        "semantic/retain_accuracy_lower",
        "semantic/judge_kappa",
    )
    assert found["forget_accuracy"].value is None
    assert found["forget_accuracy_upper"].value == 0.75
    assert found["retain_accuracy_lower"].value == 0
    assert found["coverage"].value == pytest.approx(1 / 7)
    assert found["judge_kappa"].value is None


def test_cohens_kappa_with_the_rule():
    class Contrary(Fixed):
        def matches(self, cases):
            return [
                verdict != (case.text == ANSWERS[1]) for verdict, case in zip(super().matches(cases), cases)
            ]

    ours, rule = [1, 1, 0, 1, 1, 0, 1], [1, 0, 0, 1, 1, 0, 1]
    agree, expected = sum(a == b for a, b in zip(ours, rule)) / 7, (5 / 7 * 4 / 7) + (2 / 7 * 3 / 7)
    found = values(evidence_of(Contrary()), "semantic/judge_kappa")
    assert found["judge_kappa"].value == pytest.approx((agree - expected) / (1 - expected))
    assert values(evidence_of(Fixed()), "semantic/judge_kappa")["judge_kappa"].value == 1
    assert (
        values(evidence_of(RuleJudge()), "semantic/judge_kappa")["judge_kappa"].reason
        == "the judge is the rule"
    )


def test_the_rule_is_exact_where_key_facts_are_known():
    from unlearnkit.dataset import ForgetSet, load_evaluation

    rows = load_evaluation(ForgetSet("Fictional_forget10"))["forget"]
    case = lambda row, text: Case(row["id"], row["question"], row["answer"], text, row["key"])
    assert all(
        RuleJudge().matches(
            [case(row, row[name]) for row in rows for name in ("answer", "paraphrased_answer")]
        )
    )
    assert not any(
        RuleJudge().matches([case(row, wrong) for row in rows for wrong in row["perturbed_answer"]])
    )


@pytest.mark.parametrize(
    "reply, verdict",
    [
        ("yes", True),
        ("No.", False),
        ("**Yes**", True),
        ("<think>no, wait</think> yes", True),
        ("unclear", None),
        ("Yes and no", None),
        ("", None),
        (None, None),
        ("true", None),
    ],
)
def test_replies_of_a_language_model(reply, verdict):
    class Reader:
        name, asked = "reader", []

        def ask(self, system, prompts, readable):
            self.asked += prompts
            return [reply if reply is not None and readable(reply) else None for _ in prompts]

    assert LanguageModelJudge(Reader()).matches([Case("c", "Q?", "It was Ann.", "Ann.", "Ann")]) == [verdict]
    assert "Q?" in Reader.asked[0]
    assert "Reference: It was Ann.\n" in Reader.asked[0]
    assert "matters" not in Reader.asked[0]


def test_the_embedding_judge_compares_meanings_and_reads_no_traces():
    from unlearnkit.core.embedding import Embedder

    judge = EmbeddingJudge("minilm", Embedder().similarity, 0.7)
    case = lambda text: Case("c", "What is it?", "The cat sleeps on the sofa.", text)
    assert judge.matches([case("On the couch, the cat is sleeping."), case("Inflation rose in March.")]) == [
        True,
        False,
    ]
    assert judge.verdicts([case("x")]) == [None]
    assert "minilm, cosine of at least 0.7" in judge.name


def test_cosine_is_never_negative_and_an_empty_answer_is_0():
    found = values(
        evidence_of(similarity=lambda answer, truths: [-0.5, 0.25, 0.9, 1.0][: len(answer)]),
        "semantic/forget_cosine",
    )
    assert found["forget_cosine"].columns["forget_cosine"] == [0.0, 0.25, 0.0, 1.0]


def test_entailment_asks_both_directions_and_nothing_of_strange_answers():
    asked = []

    def labels(pairs):
        asked.append(pairs)
        return [
            "entailment" if premise.startswith("It was in L") else "contradiction" for premise, _ in pairs
        ]

    found = values(evidence_of(entailment=labels), "semantic/forget_entailment", "semantic/retain_entailment")
    forwards, backwards = asked[:2]
    assert forwards == [(ANSWERS[n], FORGET[n]["answer"]) for n in (0, 1, 3)]
    assert backwards == [pair[::-1] for pair in forwards]
    columns = found["forget_entailment"].columns
    assert columns["forget_entailment"] == [1, 0, 0, 0]
    assert columns["forget_contradiction"] == [0, 1, 0, 1]
    assert columns["forget_entailment_reverse"] == [1, 0, 0, 0]
    nothing = values(evidence_of(), "semantic/forget_entailment")["forget_entailment"]
    assert nothing.value is None
    assert "judge.nli_model" in nothing.reason


def test_a_local_model_labels_entailment(tmp_path):
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertTokenizerFast

    from unlearnkit.core.files import UserError
    from unlearnkit.model.judges import Entailment

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "sleeps"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        id2label={0: "NEUTRAL", 1: "ENTAILMENT", 2: "CONTRADICTION"},
        label2id={"NEUTRAL": 0, "ENTAILMENT": 1, "CONTRADICTION": 2},
    )
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 3.0, 1.0]))
    model.save_pretrained(tmp_path / "nli")
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "nli")
    assert AutoTokenizer.from_pretrained(tmp_path / "nli")
    assert Entailment(str(tmp_path / "nli"), "cpu")([("a cat sleeps", "a cat")] * 40) == ["entailment"] * 40
    model.config.id2label = {0: "good", 1: "bad", 2: "ugly"}
    model.save_pretrained(tmp_path / "nli")
    with pytest.raises(UserError, match="labels good, bad, ugly, and none of them says entailment"):
        Entailment(str(tmp_path / "nli"), "cpu").check()


def test_usage_is_given_with_its_cost():
    from unlearnkit.core.reply_cache import Usage

    usage = Usage(asked=3, prompt_tokens=2_000_000, completion_tokens=500_000)
    assert "cost" not in usage.summary()
    assert usage.summary(1.5, 4)["cost"] == pytest.approx(5)
    assert not math.isnan(usage.summary()["asked"])
