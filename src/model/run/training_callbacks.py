"""What the Trainer calls: the progress of a training, and step checkpoints under their own names."""

import contextlib
from pathlib import Path

from accelerate import PartialState
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ...loggers.logger import NO_TERMS
from .checkpoints import drop_all_but, seal
from .progress import make_phase


class TrainingProgress(TrainerCallback):
    """Steps done, the loss with its terms, and the time left. A block in which a training runs; its end is
    the end of the display, however the training ends."""

    def __init__(self, title: str, quiet: bool):
        self.title, self.quiet, self.open = title, quiet, contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.open.close()

    def on_train_begin(self, args, state, control, **kwargs):
        phase = make_phase(self.title, "steps", self.quiet, state.max_steps, state.global_step)
        self.phase = self.open.enter_context(phase)

    def note(self, text: str) -> None:
        """Show a word beside the steps, until the next step's loss."""
        self.phase.update(note=text)

    def on_step_end(self, args, state, control, **kwargs):
        self.phase.update(state.global_step)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            # The rest, such as the figures of a combiner, would hide the bar; it is all in log.jsonl.
            shown = {name: value for name, value in logs.items() if name == "loss" or name not in NO_TERMS}
            self.phase.update(note=", ".join(f"{name} {value:.3g}" for name, value in shown.items()))


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
