"""The last screens show figures and texts as they are, whatever stands in them."""

import contextlib
import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, seed
from hypothesis import settings as fuzz
from hypothesis import strategies as some

from unlearnkit.core.files import UserError
from unlearnkit.core.screen import show_error
from unlearnkit.exec.script import with_clear_errors
from unlearnkit.loggers.logger import Results
from unlearnkit.model.benchmarks.benchmark_folder import show_outcomes
from unlearnkit.model.benchmarks.benchmark_runner import ERROR, OK, TaskOutcome
from unlearnkit.model.report.comparison import show
from unlearnkit.model.report.last_screen import show_outcome
from unlearnkit.model.run.progress import Lines
from unlearnkit.model.run.unlearn_run import Outcome

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def settings(text: str = "NPO+FT") -> SimpleNamespace:
    return SimpleNamespace(
        method=SimpleNamespace(name=text, forget="NPO", trains=True),
        dataset=SimpleNamespace(forget_dataset_name=text),
        unlearn=SimpleNamespace(task_name="fictional"),
        evaluate=SimpleNamespace(retain_results=None, max_new_tokens=200),
    )


def outcome(text: str) -> Outcome:
    """A finished run with the text in every place that a user, a row or a model fills."""
    row = {"id": text, "question": text, "answer": text, "generation": text}
    key = f"lm_eval/{text}"
    detail = {key: {"reason": text, "better": "up"}, "forget/prob": {"reason": ""}}
    metrics = {"forget/prob": 0.5, key: None}
    results = Results(metrics, detail, {"forget": [row]}, judge=usage(text))
    return Outcome(results, results, Path(text), 1.0, None, None)


def usage(name: str) -> dict:
    return {"name": name} | dict.fromkeys(
        ("asked", "cached", "failed", "prompt_tokens", "completion_tokens"), 1
    )


def screens(text: str) -> None:
    """Print the text on every last screen and as an error."""
    show_outcome(outcome(text), settings(text))
    score = {"value": 0.5, "n": 3, "interval": None, "better": "up"}
    failed = TaskOutcome(text, ERROR, text)
    show_outcomes([TaskOutcome(text, OK, scores={f"{text}/acc": score}), failed], Path(text))
    show({text: {text: 0.5}, "other": {text: None}})
    show_error(f"error: {text}")


def test_texts_are_literal_on_the_last_screen(capsys):
    text = "[bold]Who[/bold] [/x] :smile: {0} %s"
    screens(text)
    shown = capsys.readouterr()
    assert shown.out.count(text) > 10
    assert shown.err == f"error: {text}\n"


def test_control_codes_are_shown_on_the_last_screen(capsys):
    screens("\x1b]0;owned\x07 \x9b2J \r")
    shown = capsys.readouterr()
    assert r"after   \x1b]0;owned\x07 \x9b2J \r" in shown.out
    assert not CONTROL.search(shown.out + shown.err)


def test_no_line_of_an_answer_passes_for_a_line_of_the_screen(capsys):
    show_outcome(outcome("one\nrun folder: elsewhere"), settings())
    assert "\nrun folder: elsewhere  (true" not in capsys.readouterr().out


def test_the_test_behind_forget_quality_stands_below_the_table(capsys):
    found = {"D": 0.225, "rows": 40, "other_rows": 39, "next_lower": {"p": 0.164967}}
    for higher, line in (
        ({"p": 0.40459}, "; the nearest other values of p are 0.165 and 0.405\n"),
        (None, "\n"),
    ):
        detail = {"forget_quality": {"reason": "", **found, "next_higher": higher}}
        results = Results({"forget_quality": 0.2657}, detail)
        show_outcome(Outcome(None, results, None, 1.0, None, None), settings())
        shown = capsys.readouterr().out
        assert f"forget_quality: D = 0.225, 40 rows against 39 of the retain model{line}" in shown


def test_figures_that_most_runs_lack_are_shown_with_a_value_only(capsys):
    for value in (None, 0.75):
        reason = "" if value else "needs a second retain model's results"
        results = Results(
            {"forget_quality_yardstick": value}, {"forget_quality_yardstick": {"reason": reason}}
        )
        show_outcome(Outcome(None, results, None, 1.0, None, None), settings())
        assert ("forget_quality_yardstick" in capsys.readouterr().out) == (value is not None)


def test_paths_are_not_broken_at_the_width(capsys):
    folder = Path("/", *(20 * ["a folder"]))
    show_outcome(Outcome(None, Results({}), folder, 1.0, None, None), settings())
    assert f"\nrun folder: {folder}\n" in capsys.readouterr().out


def test_rows_without_a_question_are_shown(capsys):
    row = {"id": "a", "prompt": "Once upon", "gt": "a time", "generation": "a mine"}
    show_outcome(Outcome(None, Results({}, samples={"forget": [row]}), None, 1.0, None, None), settings())
    assert "Once upon  (true: a time)\n  after   a mine\n" in capsys.readouterr().out


PIECES = (
    "[bold]",
    "[/x]",
    ":smile:",
    "\x1b[2J",
    "\x1b]8;;x\x07",
    "\x9b31m",
    "\r",
    "\n",
    "\ud800",
    "{0}",
    "%s",
    "–",
)
TEXTS = some.lists(some.text(some.characters()) | some.sampled_from(PIECES)).map("".join)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@seed(0)
@fuzz(max_examples=300, deadline=None, database=None)
@given(TEXTS)
def test_any_text_in_row_name_and_path_is_shown_without_control_codes(encoding, text):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):

        def act() -> None:
            screens(text)
            with Lines(text, text, interval=1e6) as phase:
                phase.update(note=text)
                phase.show()
            raise UserError(text)

        assert with_clear_errors(act) == 1
    for stream in streams:
        assert not CONTROL.search(stream.buffer.getvalue().decode(encoding))


def test_the_sentence_of_a_bound_is_on_the_last_screen(capsys):
    sentence = "with 99 % confidence a sampled answer to any of these 3 questions"
    found = outcome("NPO+FT")
    for key, value in {"sampling/leak_bound_max": 0.2, "leak_at/8": None}.items():
        found.after.metrics[key] = value
        found.after.detail[key] = {"reason": sentence if value else "leak@8 needs 8"}
    show_outcome(found, settings())
    shown = capsys.readouterr().out
    assert f"sampling/leak_bound_max: {sentence}" in shown
    assert "leak@8 needs 8" not in shown, "a null of many has its reason in metrics_detail.json"


def test_rows_whose_texts_were_cut_are_named_once(capsys):
    figures = {"n": 10, "reason": "", "cut_texts": 9}
    detail = {
        "arithmetic/accuracy": figures,
        "arithmetic/accuracy_direct": figures,
        "forget/rougeL": {**figures, "cut_texts": 2},
        "model_utility": {"n": 10, "reason": ""},
    }
    show_outcome(
        Outcome(None, Results(dict.fromkeys(detail, 0.0), detail), None, 1.0, None, None), settings()
    )
    shown = " ".join(capsys.readouterr().out.split())
    line = "* arithmetic/accuracy, 10 arithmetic rows: evaluate.max_new_tokens 200 cut 9 of its texts"
    assert shown.count(line) == shown.count("of its texts") == 1


def test_the_figures_that_decide_come_first_then_groups_and_no_empty_column(capsys):
    keys = ["forget/prob", "mia/loss/auc", "model_utility", "forget/rougeL", "forget_quality"]
    keys += [f"mia/{name}/auc" for name in ("zlib", "min_k", "reference", "gradnorm", "recall")]
    detail = {key: {"reason": ""} for key in keys}
    results = Results(dict.fromkeys(keys, 0.5), detail)
    show_outcome(
        Outcome(None, results, Path("run"), 1.0, None, None, report=Path("run/report.html")), settings()
    )
    shown = capsys.readouterr().out
    names = [line.split("│")[1].strip() for line in shown.splitlines() if line.startswith("│")]
    assert names[:4] == ["these decide", "forget_quality ↑", "forget/rougeL ↓", "model_utility ↑"]
    assert names[4:] == [
        *("forgotten", "forget/prob ↓", "privacy", "mia/loss/auc ↓", "mia/zlib/auc ↓", "mia/min_k/auc ↓"),
        *("mia/reference/auc ↓", "2 more in metrics.json", "training time"),
    ]
    assert "retain" not in shown.partition("these decide")[0] and "target" not in shown
    assert shown.endswith("\nrun folder: run\nreport: run/report.html\n")
