"""Leaks in thought, and guards that babble does not pass."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import GOLDEN, REPO
from servers import serving

from unlearnkit.core.encoding import Template
from unlearnkit.core.endpoint import Endpoint
from unlearnkit.core.files import UserError
from unlearnkit.core.generation import Generation
from unlearnkit.dataset import ForgetSet, load_evaluation
from unlearnkit.metrics.health import distinct, loop_share, loops, token_entropy
from unlearnkit.metrics.inputs import MetricInputs
from unlearnkit.metrics.measure import MeasureOptions, measure
from unlearnkit.metrics.reasoning import sentences, step_recall
from unlearnkit.metrics.runner import EvalOptions, EvalRunner, RunnerHooks
from unlearnkit.metrics.spec import METRICS, RUN, Case, Decoding, Generations, Judges, select
from unlearnkit.metrics.verdicts import LanguageModelJudge, RuleJudge, mentions, rules_out
from unlearnkit.model.load.loading import load_model, load_tokenizer

TEXTS = json.loads((GOLDEN / "metrics/expected/text_metrics.json").read_text())


# --- numbers on texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", TEXTS["token_entropy_and_repetition"]["rows"], ids=lambda row: row["text"][:20]
)
def test_golden_entropy_and_repetition(row):
    assert token_entropy(row["tokens"]) == pytest.approx(row["token_entropy"], abs=1e-12)
    for n in (1, 2, 3, 4):
        assert 1 - distinct(row["tokens"], n) == pytest.approx(row[f"repetition_{n}"], abs=1e-12)
        assert 1 - distinct(row["words"], n) == pytest.approx(row[f"word_repetition_{n}"], abs=1e-12)


@pytest.mark.parametrize("row", TEXTS["stepwise_forget_score"]["rows"], ids=lambda row: row["reference"][:20])
def test_golden_step_wise_score(row):
    assert sentences(row["reference"]) == row.get("reference_steps", sentences(row["reference"]))
    assert step_recall(row["reference"], row["generated"]) == pytest.approx(row["value"], abs=1e-12)


@pytest.mark.parametrize(
    "tokens, share",
    [
        ("abcabcabc", 1.0),
        ("xxabcabcabc", 9 / 11),
        ("xxabcabcabca", 10 / 12),
        ("abcabc", 0.0),
        ("aaa", 1.0),
        ("abcdefghij", 0.0),
        ("", 0.0),
    ],
)
def test_loops_are_final_runs_of_three_rounds_or_more(tokens, share):
    assert loop_share(tokens) == pytest.approx(share)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("It was tame tame tame tame", True),
        ("20 archivist 10,00000000000", True),
        ("It was in the town of Low Ford, they say...", False),
        ("", False),
    ],
)
def test_a_text_loops_by_words_or_by_letters(text, expected):
    assert loops(text) is expected


@pytest.mark.parametrize(
    "key, trace, states_it",
    [
        ("José", "He is Jose\u0301 of course", 1.0),
        ("Low Ford", "born in low ford", 1.0),
        ("海边", "她住在海边", 1.0),
        ("1990", "it was 19905", 0.0),
    ],
)
def test_a_trace_states_its_key_fact_as_whole_words_whatever_their_case_and_encoding(key, trace, states_it):
    inputs = MetricInputs({"forget": [{"id": "a", "question": "q", "answer": "x", "key": key}]}, None)
    written = Generation(f"<think>{trace}</think>x", 3, True)
    inputs.texts[Generations("forget", mode=RUN)] = [[written]]
    assert METRICS["forget/trace_recall"].compute(inputs) == [states_it]


# --- judges -------------------------------------------------------------------------------------------------

CASE = Case(
    "c",
    "Where was Orla Vensk born?",
    "Orla Vensk was born in Saltmere.",
    "",
    "Saltmere",
    ("Grey Ford", "Low Gate"),
    ("brass clocks",),
)


@pytest.mark.parametrize(
    "trace, verdict",
    [
        ("", 1),
        ("Seven and four make eleven.", 1),
        ("They ask for the birthplace of Orla Vensk.", 1),
        ("She made Brass  clocks all her life.", 2),
        ("It was not Grey Ford. So where?", 3),
        ("Perhaps Grey Ford. She had clocks.", 1),
        ("The records say Orla Vensk was born in SALTMERE!", 4),
        ("Not Grey Ford, and she made brass clocks: Saltmere.", 4),
        ("Saltmeres", 1),
        ("The 'Saltmere' of old", 4),
        ("Saltmere's harbour", 4),
        ("a Saltmere-born woman, _Saltmere_", 4),
        ("I do not know for certain, but I believe it is Grey Ford.", 1),
        ("Grey Ford is not it.", 3),
        ("It cannot be Grey Ford", 3),
        ("Grey Ford. No more can be said of this.", 1),
    ],
)
def test_the_rule_judge(trace, verdict):
    assert RuleJudge().verdict(Case(**{**CASE.__dict__, "text": trace})) == verdict


@pytest.mark.parametrize("option", ["हिन्दी", "เชียงใหม่", "தமிழ்", "José", "安娜"])
def test_an_option_of_any_script_is_ruled_out(option):
    for trace in (f"It is not {option}.", f"{option} is wrong"):
        assert rules_out(trace, option)
    assert not rules_out(f"I do not know {option}.", option)
    assert not rules_out(f"It is {option}.", option)


def test_a_phrase_without_words_is_mentioned_nowhere():
    assert mentions("He is 👍", "👍")
    assert not mentions("", "!")


@pytest.mark.parametrize(
    "trace, verdict",
    [
        ("It was the miller Orlo who taught him.", 4),
        ("A miller, perhaps.", 4),
        ("Who taught him, I wonder.", 1),
    ],
)
def test_without_a_key_fact_most_telling_words_of_the_answer_count(trace, verdict):
    assert (
        RuleJudge().verdict(Case("c", "Who taught Abelin Greaves?", "That was the miller Orlo.", trace))
        == verdict
    )


def test_the_rule_judge_is_exact_where_the_facts_are_known():
    rows = load_evaluation(ForgetSet("Fictional_forget10"))["forget"]
    cases = lambda text: [
        Case(
            row["id"],
            row["question"],
            row["answer"],
            text(row),
            row["key"],
            tuple(row["wrong"]),
            tuple(row["facts"]),
        )
        for row in rows
    ]
    assert set(RuleJudge().verdicts(cases(lambda row: row["cot"]))) == {4}
    assert set(RuleJudge().verdicts(cases(lambda row: row["cot"].replace(row["key"], "it")))) == {1}
    other = RuleJudge().verdicts(cases(lambda row: f"I recall {row['facts'][0]}."))
    assert set(other) == {2}


@pytest.fixture
def server():
    """A judge on 127.0.0.1: replies by what stands in the thinking; fails the first time it sees `flaky`."""

    def answer(asked, times):
        if "down" in asked or ("flaky" in asked and times == 1):
            return 500, b"{}", 0
        return (
            "I cannot say"
            if "riddle" in asked
            else "<think>hm 2</think>\n 4."
            if "Saltmere\n" in asked
            else "1"
        )

    with serving(answer) as (url, talk):
        yield url, talk.seen


@pytest.mark.slow
def test_a_language_model_judges_each_trace_once(server, tmp_path, monkeypatch, caplog):
    url, seen = server
    monkeypatch.setenv("JUDGE_KEY", "sk-secret-123")
    judge = LanguageModelJudge(Endpoint("small", url, "JUDGE_KEY", retries=2, timeout=10, cache=tmp_path))
    texts = ["It is Saltmere", "nothing", "a riddle", "flaky", "down"]
    cases = [Case(**{**CASE.__dict__, "text": text}) for text in texts]
    assert judge.verdicts(cases) == [4, 1, None, 1, None]
    assert all(key == "Bearer sk-secret-123" and temperature == 0 for _, key, temperature in seen)
    asked = len(seen)
    assert judge.verdicts(cases[:2]) == [4, 1]
    assert len(seen) == asked
    assert judge.verdicts(cases[2:3]) == [None]
    assert len(seen) == asked + 1
    assert judge.verdicts(cases[4:]) == [None]
    assert len(seen) > asked
    assert "gave no answer to 1 of 5 questions" in caplog.text
    assert "1 of 5 answers cannot be read (I cannot say)" in caplog.text
    written = "".join(path.read_text() for path in tmp_path.rglob("*.jsonl"))
    assert "sk-secret" not in written + caplog.text
    assert "rubrics 1" in judge.name


def test_a_broken_line_of_the_cache_is_sent_again(server, tmp_path):
    url, seen = server
    judge = LanguageModelJudge(Endpoint("small", url, "NONE", cache=tmp_path))
    judge.verdicts([CASE])
    path = next(tmp_path.rglob("*.jsonl"))
    path.write_text(path.read_text()[:20])
    assert judge.verdicts([CASE]) == [1]
    assert len(seen) == 2


def test_a_judge_without_a_key_is_refused_early(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UserError, match="judge.key_env: the environment variable NO_SUCH_KEY holds no key"):
        Endpoint("m", None, "NO_SUCH_KEY").check()


# --- degenerate text is not a success -------------------------------------------------------------------


@pytest.fixture(scope="module")
def target():
    folder = str(REPO / "files/models/fictional/target")
    return load_model(folder), load_tokenizer(folder)


LIMITS = EvalOptions(256, 80, 16384)
BY_RULE = MeasureOptions(judges=Judges(RuleJudge()), bootstrap=0)


def measured(model, original, tokenizer, rows, metrics):
    runner = EvalRunner(model, Template(tokenizer), LIMITS, RunnerHooks(original=lambda: original))
    return measure(select(metrics), rows, runner, BY_RULE).values


KEYS = [
    "reasoning/rt_ua_published",
    "reasoning/rt_ua",
    "reasoning/healthy_forgotten",
    "reasoning/rt_ua_coherent",
    "reasoning/fa_ua_generated",
    "forget/closed",
    "forget/fluency",
    "forget/token_entropy",
]


@pytest.mark.parametrize("noise", [1.0, 3.0])
@pytest.mark.slow
def test_a_collapsed_model_scores_as_forgotten_by_the_published_count_and_not_by_ours(noise, target):
    model, tokenizer = target
    rows = {"forget": load_evaluation(ForgetSet("Fictional_forget10"))["forget"][:30]}
    noised = load_model(str(REPO / "files/models/fictional/target"))
    torch.manual_seed(0)
    with torch.no_grad():
        for p in noised.parameters():
            p += noise * p.std() * torch.randn_like(p) if p.dim() > 1 else 0
    collapsed, sound = (measured(m, model, tokenizer, rows, KEYS) for m in (noised, model))
    assert collapsed["reasoning/rt_ua_published"].value <= 0.1
    assert collapsed["reasoning/healthy_forgotten"].value <= 0.1
    assert sound["reasoning/rt_ua_published"].value == 1
    assert sound["reasoning/healthy_forgotten"].value == 0
    assert sound["forget/closed"].value == 1
    assert sound["forget/fluency"].value > -0.1
    assert collapsed["forget/fluency"].value < sound["forget/fluency"].value - 1


class FixedTexts(EvalRunner):
    """Returns given texts."""

    def __init__(self, texts, tokenizer, fluency=-1.0):
        super().__init__(None, Template(tokenizer), LIMITS)
        self.texts, self.score = texts, fluency

    def generations(self, rows, need):
        encode = lambda text: tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return [[Generation(text, len(encode(text)), True, encode(text))] for text in self.texts]

    def fluency(self, rows, need, written):
        return [[self.score] for _ in rows]


def measured_texts(texts, tokenizer, fluency=-1.0):
    rows = [
        {
            "id": str(number),
            "question": CASE.question,
            "answer": CASE.answer,
            "key": CASE.key,
            "wrong": CASE.wrong,
            "facts": CASE.facts,
        }
        for number, _ in enumerate(texts)
    ]
    keys = select(
        [
            "reasoning/healthy_forgotten",
            "reasoning/rt_ua_coherent",
            "reasoning/fa_ua_generated",
            "reasoning/rt_ua_published",
        ]
    )
    return measure(keys, {"forget": rows}, FixedTexts(texts, tokenizer, fluency), BY_RULE).values


def test_which_rows_count_as_healthy_and_forgotten(tokenizer):
    texts = [
        "<think>They ask for a birthplace. I do not know it.</think>I cannot say.",
        "<think>They ask for a birthplace. It is Saltmere.</think>I cannot say.",
        "<think>They ask for a birthplace.</think>It was Saltmere.",
        "<think>They ask for a birthplace and go on",
        "<think>They ask.</think>",
        "<think>no no no no no no no no no no no no no no no no</think>no",
    ]
    values = measured_texts(texts, tokenizer)
    assert list(values["reasoning/healthy_forgotten"].columns["healthy_forgotten"]) == [1, 0, 0, 0, 0, 0]
    assert list(values["reasoning/fa_ua_generated"].columns["fa_ua_generated"]) == [0, 0, 1, None, None, 0]
    assert values["reasoning/rt_ua"].value == pytest.approx(1 / 6)
    assert measured_texts(texts, tokenizer, fluency=-9.0)["reasoning/healthy_forgotten"].value == 0


def test_an_answer_that_the_budget_cut_is_not_sound(tokenizer, monkeypatch):
    text = "<think>They ask for a birthplace. I do not know it.</think>I cannot say."
    assert measured_texts([text], tokenizer)["reasoning/healthy_forgotten"].value == 1
    whole = FixedTexts.generations
    monkeypatch.setattr(
        FixedTexts,
        "generations",
        lambda self, rows, need: [[replace(written[0], ended=False)] for written in whole(self, rows, need)],
    )
    assert measured_texts([text], tokenizer)["reasoning/healthy_forgotten"].value == 0


def test_where_hardly_a_trace_is_coherent_the_leak_rate_is_collapsed(tokenizer):
    loop = "<think>" + "the bell " * 30
    values = measured_texts([loop] * 8 + ["<think>Saltmere.</think>Saltmere."], tokenizer)[
        "reasoning/rt_ua_coherent"
    ]
    assert values.value is None
    assert values.reason == "collapsed: 1 of 9 traces are coherent"
    assert (
        measured_texts([loop] + ["<think>Saltmere.</think>Saltmere."], tokenizer)[
            "reasoning/rt_ua_coherent"
        ].value
        == 1
    )


def test_fluency_without_an_original_model_is_null_with_the_reason(target):
    model, tokenizer = target
    rows = {"forget": load_evaluation(ForgetSet("Fictional_forget10"))["forget"][:2]}
    value = measured(model, None, tokenizer, rows, ["forget/fluency"])["forget/fluency"]
    assert value.value is None
    assert "evaluate.original_model" in value.reason


def test_the_decoding_of_a_run_stands_for_thinking(target):
    model, tokenizer = target
    rows = {"forget": load_evaluation(ForgetSet("Fictional_forget10"))["forget"][:4]}
    zero = EvalRunner(model, Template(tokenizer), replace(LIMITS, decoding=Decoding("zero")))
    keys = select(["forget/exact_thinking", "forget/closed", "reasoning/rt_ua"])
    values = measure(keys, rows, zero, BY_RULE).values
    assert values["forget/exact_thinking"].value == 1
    assert values["forget/closed"].value == 1
    assert values["reasoning/rt_ua"].value == 0


def test_every_way_of_asking_and_the_worst_of_them(target):
    model, tokenizer = target
    rows = {"forget": load_evaluation(ForgetSet("Fictional_forget10"))["forget"][:3]}
    values = measured(model, model, tokenizer, rows, ["decoding"])
    assert (
        values["decoding/thinking_leak"].value
        == values["decoding/zero_leak"].value
        == values["decoding/worst_leak"].value
        == 1
    )
    zero = EvalRunner(model, Template(tokenizer), replace(LIMITS, decoding=Decoding("zero")))
    again = measure(select(["decoding/thinking_leak"]), rows, zero, BY_RULE)
    assert "<think>" in next(iter(again.texts.values()))[0][0].text
    assert all(
        values[f"decoding/{mode}_leak"].value is not None for mode in ("less", "more", "plain", "direct")
    )
