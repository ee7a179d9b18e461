"""The arithmetic of steps, beside what the Trainer itself counts."""

import pytest
from tiny import few_steps

from unlearnkit.core.durations import parse_duration
from unlearnkit.unlearn.step.step_plan import StepPlan
from unlearnkit.unlearn.step.trainer import UnlearnTrainer


@pytest.mark.parametrize(
    "batch, accumulation, processes",
    [(8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 1), (4, 1, 2), (2, 2, 2), (1, 4, 2)],
)
def test_the_same_steps_are_planned_however_their_rows_are_split(batch, accumulation, processes):
    """20 rows, 8 a step: 8 + 8 + 4."""
    plan = StepPlan(20, batch, accumulation, processes, epochs=5)
    assert (plan.rows_per_step, plan.steps_per_epoch, plan.steps, plan.last_window_rows) == (8, 3, 15, 4)
    assert plan.epoch(15) == 5
    assert plan.micro_steps(15) == 5 * -(-20 // (batch * processes))


def test_the_plan_is_what_the_trainer_does(tiny_model, tokenizer, tmp_path, monkeypatch):
    """Four rows in micro-batches of one, three a step: windows of 3 and 1."""
    states, micro = [], []
    training_step = UnlearnTrainer.training_step

    def counted(self, *inputs):
        micro.append(1)
        states.append(self.state)
        return training_step(self, *inputs)

    monkeypatch.setattr(UnlearnTrainer, "training_step", counted)
    few_steps(
        tiny_model,
        tokenizer,
        tmp_path,
        unlearn__unlearn_method="FT",
        dataset__batch_size=1,
        unlearn__gradient_accumulation_steps=3,
        unlearn__num_epochs=3,
    )
    plan, state = StepPlan(4, 1, 3, epochs=3), states[-1]
    assert (plan.steps, plan.last_window_rows) == (state.max_steps, 1)
    assert plan.record(state.global_step)["epochs_done"] == state.epoch == 3
    assert plan.micro_steps(state.global_step) == len(micro) == 12


@pytest.mark.parametrize(
    "every, due",
    [
        ("1 epoch", [3, 6, 9, 12]),
        ("0.5 epochs", [2, 3, 5, 6, 8, 9, 11, 12]),
        ("2 epochs", [6, 12]),
        ("5 steps", [5, 10, 12]),
        ("0.01 epochs", list(range(1, 13))),
        ("9 epochs", [12]),
    ],
)
def test_an_evaluation_is_due_at_the_first_step_after_each_multiple_and_at_the_end(every, due):
    """Three steps an epoch, of 4, 4 and 2 micro-batches."""
    plan = StepPlan(20, 2, 4, epochs=4)
    assert [step for step in range(1, 13) if plan.is_due(parse_duration(every), step)] == due
