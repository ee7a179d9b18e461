"""A phase shows a bar in a terminal, else a line at its begin and one every so often."""

import io
import sys
from types import SimpleNamespace

import pytest
from scripts import wait_until

from unlearnkit.model.run.progress import Bar, Lines, Phase, activity, counting, make_phase, progress
from unlearnkit.model.run.training_callbacks import TrainingProgress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lines(monkeypatch, capsys):
    """Gives the lines that were printed since it was last asked."""
    monkeypatch.delenv("RANK", raising=False)
    return lambda: capsys.readouterr().err.splitlines()


def test_lines_give_count_note_and_forecast(lines):
    clock = Clock()
    with Lines("training with GA", "steps", 200, interval=1e6, clock=clock) as phase:
        assert lines() == ["training with GA: 200 steps"]
        clock.now = 30
        phase.show()
        assert lines() == ["training with GA: 0 of 200 steps, 0:00:30 so far"]
        phase.update(40)
        phase.update(note="loss 1.5, ga -0.3")
        phase.show()
        assert lines() == ["training with GA: 40 of 200 steps, loss 1.5, ga -0.3, 0:02:00 left"]
    assert lines() == []


def test_what_was_done_before_and_what_begins_anew_have_no_part_in_the_forecast(lines):
    clock = Clock()
    with Lines("training", "steps", 100, done=90, interval=1e6, clock=clock) as phase:
        clock.now = 30
        phase.update(95)
        phase.show()
        assert lines()[-1] == "training: 95 of 100 steps, 0:00:30 left"
        phase.update(0, 50)
        clock.now = 40
        phase.update(10)
        phase.show()
        assert lines() == ["training: 10 of 50 steps, 0:00:40 left"]


def test_a_line_comes_every_interval_though_nothing_is_done(lines, monkeypatch):
    monkeypatch.setattr("unlearnkit.model.run.progress.INTERVAL", 0.01)
    shown = []
    with progress("thinking \x1b[2J", quiet=False, total=3):
        wait_until(lambda: shown.extend(lines()) or len(shown) > 2, seconds=20)
    assert shown[0] == r"thinking \x1b[2J: 3 rows"
    assert set(shown[1:]) == {r"thinking \x1b[2J: 0 of 3 rows, 0:00:00 so far"}


def test_the_first_forecast_comes_before_the_first_interval_is_over(lines, monkeypatch):
    monkeypatch.setattr("unlearnkit.model.run.progress.FIRST", 0.01)
    shown = []
    with progress("measuring", quiet=False, total=4) as on_rows:
        on_rows(2)
        wait_until(lambda: shown.extend(lines()) or len(shown) > 1, seconds=20)
    assert shown[1].startswith("measuring: 2 of 4 rows, 0:00:0")
    assert shown[1].endswith("left") and len(shown) == 2


def test_a_total_that_shows_later(lines):
    with counting("benchmarks: smoke (1 of 2)", quiet=False) as tell:
        assert lines() == ["benchmarks: smoke (1 of 2)"]
        tell(0, 8)


@pytest.mark.parametrize(("quiet", "rank"), [(True, "0"), (False, "1")])
def test_a_quiet_run_and_all_but_the_first_process_show_nothing(lines, monkeypatch, quiet, rank):
    monkeypatch.setenv("RANK", rank)
    with progress("measuring", quiet, 4) as on_rows:
        on_rows(4)
    with counting("benchmarks", quiet) as tell:
        tell(1, 2)
    assert lines() == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_bar_with_total_and_note_and_literal_titles(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in {"TERM": "xterm", "COLUMNS": "200", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    phase = make_phase("measuring [/red]\x1b]0;x\x07", "rows", quiet=False, total=8)
    assert isinstance(phase, Bar)
    with phase:
        phase.update(3, note="loss 1.5")
        phase.bar.refresh()
    for part in ("measuring [/red]", r"\x1b]0;x\x07", "3/8 rows", "loss 1.5"):
        assert part in terminal.getvalue()
    assert "\x1b]" not in terminal.getvalue()


def test_a_long_note_hides_neither_the_bar_nor_the_time(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in {"TERM": "xterm", "COLUMNS": "100", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with make_phase("training with AltPO+FT", "steps", quiet=False, total=8) as phase:
        phase.update(3, note="loss 1.5, " * 30)
        phase.bar.refresh()
    last = [line for line in terminal.getvalue().splitlines() if "loss" in line][-1]
    for part in ("training with AltPO+FT", "━", "3/8 steps", "0:00:00"):
        assert part in last


def test_the_note_of_a_step_is_its_loss_with_its_terms(lines):
    shown = TrainingProgress("training", quiet=False)
    state = SimpleNamespace(max_steps=4, global_step=0)
    with shown:
        shown.on_train_begin(None, state, None)
        shown.on_log(None, state, None, {"loss": 1.5, "npo": 0.5, "cosine": 0.1, "step": 1, "tokens": 9})
        assert shown.phase.note == "loss 1.5, npo 0.5"


def test_a_terminal_that_draws_no_bars_gets_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_phase("measuring", "rows", quiet=False), Lines)
    assert type(make_phase("measuring", "rows", quiet=True)) is Phase


def test_no_more_is_done_than_there_is(lines):
    phase = Phase("evaluating", "rows", total=5)
    phase.add(3)
    phase.add(3)
    assert phase.done == 5
    open_ended = Phase("evaluating", "rows")
    open_ended.add(3)
    assert open_ended.done == 3


def test_a_phase_that_is_often_short_has_a_line_only_when_it_is_long(lines, monkeypatch):
    with activity("saving the model", quiet=False):
        pass
    assert lines() == []
    monkeypatch.setattr("unlearnkit.model.run.progress.FIRST", 0.01)
    shown = []
    with activity("saving the model", quiet=False):
        wait_until(lambda: shown.extend(lines()) or shown, seconds=20)
    assert shown == ["saving the model: 0:00:00 so far"]


def test_loading_names_the_model_and_counts_its_tensors(tiny_model_folder, lines, monkeypatch):
    from transformers.utils.logging import set_tqdm_hook

    from unlearnkit.model.load.loading import load_initial
    from unlearnkit.model.settings.overall_keys import Overall

    counts = []
    update = Phase.update

    def noted(phase, *words, **more):
        update(phase, *words, **more)
        counts.append((phase.done, phase.total))

    monkeypatch.setattr(Phase, "update", noted)
    overall = Overall(model_name=str(tiny_model_folder), device="cpu")
    tensors = len(load_initial(overall).state_dict())
    assert lines() == [f"loading {tiny_model_folder}"]
    assert counts == [(n, tensors) for n in range(tensors + 1)]
    assert set_tqdm_hook(None) is None, "the hook is gone"
    load_initial(Overall(model_name=str(tiny_model_folder), device="cpu", random_init=True))
    assert lines() == [f"drawing the weights of {tiny_model_folder}"]
    counts.clear()
    load_initial(Overall(model_name=str(tiny_model_folder), device="cpu", quiet=True))
    assert counts == [] and not any(line.startswith("loading") for line in lines())


def test_an_evaluation_shows_its_rows_and_then_its_metrics(lines, monkeypatch):
    from unlearnkit.model.evaluation import _Showing

    monkeypatch.setattr("unlearnkit.model.run.progress.INTERVAL", 0.01)
    with _Showing("measuring", quiet=False) as showing:
        rows = showing.next("", "rows", 4)
        assert lines() == ["measuring: 4 rows"]
        assert showing.noting("loading the original model", lambda: rows.note) == "loading the original model"
        assert rows.note == ""
        showing.metric(1, "privleak", 3)
        lines()
        showing.metric(2, "mia/loss/auc", 3)
        shown = []
        wait_until(lambda: shown.extend(lines()) or len(shown) > 1, seconds=20)
    assert shown[-1].startswith(
        "measuring: figures and their intervals: 1 of 3 metrics, mia/loss/auc, 0:00:0"
    )
    assert not any("rows" in line for line in shown)
