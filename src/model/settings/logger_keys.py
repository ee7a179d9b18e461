"""Settings of the run folder and of Weights & Biases."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ...core.options import Condition, knob


@dataclass(frozen=True)
class Logging:
    """The run folder."""

    name: str | None = knob(
        None,
        "run folder under the root; the default is method (or the model that is measured), forget set, time",
        pattern=r"[\w+=,@-][\w+=,@.-]*",
    )
    overwrite: bool = knob(False, "replace a run of the same name")
    tensorboard: bool = knob(
        False, "also write TensorBoard events into the run folder (needs the package tensorboard)"
    )
    report: bool = knob(True, "write report.html, which shows the run, into the run folder")
    push_to_hub: str | None = knob(
        None,
        "hub repository that gets the trained model with its card and .eval_results; made private where it is"
        " not there; no row and no generated text is sent",
        pattern=r"[\w.-]+/[\w.-]+",
    )


@dataclass(frozen=True)
class JsonLogging:
    """The json logger."""

    root: str = knob("files/results", "folder of all runs")


@dataclass(frozen=True)
class WandbLogging:
    """The wandb logger."""

    only_if: ClassVar[Mapping[str, Condition]] = {"*": ("overall.logger", "wandb")}

    project: str = knob("unlearning", "project on Weights & Biases")
    mode: str = knob(
        "offline", "offline writes under the run folder, online sends", choices=("offline", "online")
    )
