"""What the Trainer calls: the bar of a training, and step checkpoints under their own names."""

from pathlib import Path

from accelerate import PartialState
from rich.progress import TextColumn, TimeRemainingColumn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from model.checkpoints import drop_all_but, seal
from model.progress import make_bar

HIDDEN = ("step", "epoch", "loss", "tokens", "tokens_per_second", "learning_rate", "grad_norm")
"""What a record holds beside the terms; it is all in log.jsonl."""


class TrainingBar(TrainerCallback):
    """Steps done, time left, and the terms of the loss."""

    def __init__(self, title: str, quiet: bool):
        self.title = title
        self.bar = make_bar(
            quiet,
            TextColumn("{task.completed}/{task.total} steps"),
            TextColumn("{task.fields[terms]}"),
            TimeRemainingColumn(),
        )

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar.start()
        self.task = self.bar.add_task(self.title, total=state.max_steps, terms="")

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args, state, control, logs=None, **kwargs):
        shown = {name: value for name, value in (logs or {}).items() if name not in HIDDEN}
        self.bar.update(self.task, terms="  ".join(f"{name} {value:.3g}" for name, value in shown.items()))

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.stop()


class StepCheckpoints(TrainerCallback):
    """Turns each checkpoint that the Trainer has just written into `step-N`, and removes the one before."""

    def on_save(self, args, state, control, **kwargs):
        PartialState().wait_for_everyone()
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir))
        fresh = folder / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        seal(fresh)
        drop_all_but(folder, fresh.rename(folder / f"step-{state.global_step}"))
