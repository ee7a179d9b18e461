"""Rules that make one update of the forget and the retain gradient.

f is the gradient of the forget objective that is minimised, r that of the retain objective, one tensor for
each trained weight, without the weights of their sides; `wf` (`unlearn.forget_weight`) and `wr`
(`unlearn.gamma`) enter where a rule says so. A rule is a pure function of these and of a `state` that lives
as long as the run and goes into every checkpoint.

PCGrad, GRU, SAGO and NGDiff put the retain gradient first, BLUR the forget gradient.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.options import knob
from ...core.registry import Registry
from ...core.sharding import whole
from ..base import add_up

COMBINERS = Registry("combiner")

Gradient = Sequence[Tensor]
State = dict[str, list[Tensor]]


def dot(a: Iterable[Tensor], b: Iterable[Tensor]) -> Tensor:
    """Inner product over all tensors, summed in float32 or wider."""
    return whole(add_up((x * y).sum(dtype=torch.promote_types(x.dtype, torch.float32)) for x, y in zip(a, b)))


def over(numerator: Tensor, denominator: Tensor) -> Tensor:
    """A quotient that is 0 where there is nothing to divide by."""
    return torch.where(
        denominator > 0, numerator / denominator.clamp(min=torch.finfo(denominator.dtype).tiny), 0.0
    )


def magnitude(gradient: Gradient) -> Tensor:
    """The power of two below the largest element, which divides without rounding; 1 where all are 0."""
    largest = torch.stack([whole(x.abs().max()) for x in gradient]).max()
    largest = largest.to(torch.promote_types(largest.dtype, torch.float32))
    return torch.where(largest > 0, largest / (2 * torch.frexp(largest).mantissa), 1.0)


def scaled(gradient: Gradient, size: Tensor) -> Iterator[Tensor]:
    return (x / size.to(x.dtype) for x in gradient)


class Combiner:
    """Base of the rules: dataclasses with knobs for fields."""

    weighs: ClassVar[bool] = True
    """Do the weights of the sides enter?"""

    def combine(self, f: Gradient, r: Gradient, wf: float, wr: float, state: State) -> list[Tensor]:
        """The direction of the update, one tensor for each weight."""
        raise NotImplementedError


@COMBINERS.register("sum")
@dataclass(frozen=True)
class Sum(Combiner):
    """The weighted sum: what a joint backward gives.

    Formula: wf f + wr r
    Cost: one backward; every other rule takes one for each side and holds two gradients."""

    def combine(self, f, r, wf, wr, state):
        return [wf * x + wr * y for x, y in zip(f, r)]


@COMBINERS.register("pcgrad")
@dataclass(frozen=True)
class PCGrad(Combiner):
    """Conflicting gradients projected (arXiv:2001.06782): what of the forget gradient opposes the retain
    gradient is taken out. The update never opposes the retain gradient.

    Formula: wf (f - min(<f, r>, 0) / ||r||² r) + wr r
    Cost: as sum, and one more gradient."""

    scope: str = knob(
        "tensor",
        "compare f and r tensor by tensor (published), or as one vector",
        choices=("tensor", "global"),
    )
    constant: float = knob(
        0.0,
        "added to ||r||², so that some of what opposes a small retain gradient stays; published: 1e-10",
        at_least=0,
    )

    def combine(self, f, r, wf, wr, state):
        units = [(list(f), list(r))] if self.scope == "global" else [([x], [y]) for x, y in zip(f, r)]
        found = []
        for fs, rs in units:
            # In float32 the squares of elements below 1e-19 are lost: r goes in with elements of about 1.
            size = magnitude(rs)
            square = dot(scaled(rs, size), scaled(rs, size)) + size.new_tensor(self.constant) / size / size
            opposed = over(torch.clamp(dot(fs, scaled(rs, size)), max=0), square)
            found += [
                wf * (x - opposed.to(x.dtype) * u) + wr * y for x, u, y in zip(fs, scaled(rs, size), rs)
            ]
        return found


@COMBINERS.register("gru")
@dataclass(frozen=True)
class GRU(Combiner):
    """Gradient rectified unlearning (arXiv:2503.09117): the forget gradient without what opposes a moving
    average r̃ of the retain gradient. The retain gradient itself is not added.

    Formula: f - min(cos(f, r̃), 0) ||f|| / ||r̃|| r̃, r̃ <- m r + (1 - m) r̃
    Cost: as sum, and two more gradients."""

    momentum: float = knob(
        0.8, "m, the weight of the newest retain gradient in its average", above=0, at_most=1
    )
    cos_clip: float = knob(
        -1.0,
        "a cosine below this counts as this, so that under strong conflict less is taken out; -1 is never",
        at_least=-1,
        at_most=0,
    )
    weighs = False

    def combine(self, f, r, wf, wr, state):
        before = state.get("average") or [torch.zeros_like(y) for y in r]
        average = state["average"] = [
            self.momentum * y + (1 - self.momentum) * old for y, old in zip(r, before)
        ]
        norms = dot(f, f).sqrt(), dot(average, average).sqrt()
        cosine = over(dot(f, average), norms[0] * norms[1]).clamp(self.cos_clip, 0.0)
        share = over(cosine * norms[0], norms[1])
        return [x - share.to(x.dtype) * y for x, y in zip(f, average)]


@COMBINERS.register("sago")
@dataclass(frozen=True)
class SAGO(Combiner):
    """Sign-aware gradient combination (arXiv:2604.14808): where the signs of an element conflict the retain
    gradient alone, elsewhere the forget gradient alone. No element of the update opposes the retain gradient.

    Formula: wr r where f r < 0, else wf f
    Cost: as sum, and one more gradient."""

    prefer_retain: bool = knob(
        False, "where the signs agree, both gradients instead of the forget gradient alone"
    )

    def combine(self, f, r, wf, wr, state):
        agreed = [wf * x + wr * y if self.prefer_retain else wf * x for x, y in zip(f, r)]
        return [torch.where(x * y < 0, wr * y, z) for x, y, z in zip(f, r, agreed)]


@COMBINERS.register("blur")
@dataclass(frozen=True)
class BLUR(Combiner):
    """Bi-level unlearning (arXiv:2506.08164): the retain gradient without its part along the forget gradient.
    Forget first: the update may oppose the retain gradient. `upper` exchanges the two sides.

    Formula: wf f + wr (r - <r, f> / ||f||² f)
    Cost: as sum, and one more gradient."""

    upper: bool = knob(False, "take the forget gradient without its part along the retain gradient instead")

    def combine(self, f, r, wf, wr, state):
        (kept, w_kept), (cleared, w_cleared) = ((r, wr), (f, wf)) if self.upper else ((f, wf), (r, wr))
        along = over(dot(cleared, kept), dot(kept, kept))
        return [w_kept * k + w_cleared * (c - along.to(c.dtype) * k) for k, c in zip(kept, cleared)]


@COMBINERS.register("ngdiff")
@dataclass(frozen=True)
class NGDiff(Combiner):
    """Normalised gradient difference (arXiv:2410.22086): both gradients at length 1, so that the scale of a
    loss does not matter. The update opposes neither. A side without a gradient leaves the other alone.

    Formula: f / ||f|| + r / ||r||
    Cost: as sum, and one more gradient."""

    weighs = False

    def combine(self, f, r, wf, wr, state):
        scales = [over(torch.ones_like(norm), norm) for norm in (dot(f, f).sqrt(), dot(r, r).sqrt())]
        return [scales[0].to(x.dtype) * x + scales[1].to(y.dtype) * y for x, y in zip(f, r)]


def diagnosis(f: Gradient, r: Gradient, d: Gradient) -> dict[str, float]:
    """What is logged of a step: norms, the cosine of f and r, how far the update goes along each, the shares
    of elements and of tensors in conflict. The element share is about .5 for gradients that have nothing to
    do with each other.
    """
    ff, rr, fr = dot(f, f), dot(r, r), dot(f, r)
    elements = sum(x.numel() for x in f)
    return {
        "forget_norm": ff.sqrt().item(),
        "retain_norm": rr.sqrt().item(),
        "direction_norm": dot(d, d).sqrt().item(),
        "cosine": over(fr, (ff * rr).sqrt()).item(),
        "along_forget": over(dot(d, f), ff).item(),
        "along_retain": over(dot(d, r), rr).item(),
        "conflict": whole(add_up((x * y < 0).sum() for x, y in zip(f, r))).item() / elements,
        "tensors_in_conflict": sum(bool(dot([x], [y]) < 0) for x, y in zip(f, r)) / len(f),
    }
