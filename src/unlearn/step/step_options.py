"""What a step has beside the plain gradient and AdamW."""

from dataclasses import dataclass

from ...core.zero import ZeroPlan
from ...optim import Averaging, Sophia, Wrapper
from ..gradients import Combiner
from ..mask import WeightMask


@dataclass(frozen=True)
class StepOptions:
    """What a step has beside the plain gradient and AdamW."""

    sophia: Sophia | None = None
    """Sophia in place of the Trainer's AdamW."""
    flatness: Wrapper | None = None
    """How the forget gradient is taken where it is not at the weights themselves."""
    averaging: Averaging | None = None
    """The mean of the weights over the training, which takes their place at its end."""
    mask: WeightMask | None = None
    """What may change."""
    combiner: Combiner | None = None
    """What makes one update of the two sides' gradients; None is their weighted sum."""
    weights: tuple[float, float] = (1.0, 1.0)
    """The weights of the forget and of the retain side, which a combiner applies."""
    zero: ZeroPlan | None = None
    """What DeepSpeed shares over processes; None where it is not the engine."""

    @property
    def splits_sides(self) -> bool:
        """Does the step need one gradient for each side?"""
        return self.flatness is not None or self.combiner is not None

    @property
    def estimates_curvature(self) -> bool:
        return self.sophia is not None and self.sophia.hessian == "gnb"
