"""Terms that stack on any method: `NPO+FT+L1`, `GA+KL+ILU`."""

from dataclasses import dataclass

import torch

from ...core.likelihood import count_labels
from ...core.options import knob
from ..base import REGULARIZERS, Objective, Term, add_up
from ..scoring import answer_nll


def matrices(model) -> list[torch.Tensor]:
    """The trainable matrices of a model's blocks: no norms, no biases, no embeddings."""
    shared = {
        id(table.weight)
        for table in (model.get_input_embeddings(), model.get_output_embeddings())
        if table is not None
    }
    return [p for p in model.parameters() if p.requires_grad and p.dim() > 1 and id(p) not in shared]


@REGULARIZERS.register("L1", "l1_sparse", "l1")
@dataclass(frozen=True)
class L1(Objective):
    """l1 sparsity (Jia et al., arXiv:2304.04934): the sum of the absolute weights, so that unlearning prefers
    few of them.

    Formula: α sum |θ|
    Cost: one pass over the weights per micro-batch; no forward."""

    alpha: float = knob(1e-5, "weight of the sum of absolute weights", at_least=0)
    scope: str = knob(
        "matrices",
        "which weights: matrices (no norms, biases or embeddings) or all trainable ones",
        choices=("matrices", "all"),
    )

    on_weights = True

    def terms(self, model, batch, reference):
        if self.alpha == 0:
            return {}
        plain = getattr(model, "module", model)
        weights = (
            matrices(plain)
            if self.scope == "matrices"
            else [p for p in plain.parameters() if p.requires_grad]
        )
        name, part = next(iter(batch.items()))
        total = add_up(p.abs().sum(dtype=torch.float32) for p in weights)
        return {"l1": Term(total * len(part["labels"]), name, "rows", factor=self.alpha)}


@REGULARIZERS.register("ILU")
@dataclass(frozen=True)
class ILU(Objective):
    """Invariant unlearning (arXiv:2506.01339): the gradient of a fine-tuning loss on an unrelated environment
    set (`dataset.environment_dataset_name`) with respect to w at w = 1, so that later fine-tuning does not
    undo the forgetting. No code was published; both readings of its formula are here.

    Formula: λ ||θ ∘ ∇l(θ)||² (elementwise) or λ <θ, ∇l(θ)>² (scalar), l = NLL on the environment
    Cost: one forward and a double backward over the environment rows, in plain attention."""

    weight: float = knob(1.0, "weight of the invariance penalty", at_least=0)
    form: str = knob(
        "elementwise",
        "w multiplies each weight (elementwise) or all of them (scalar)",
        choices=("elementwise", "scalar"),
    )
    needs = frozenset({"double_backward"})
    on_weights = True
    parts = frozenset({"environment"})

    def terms(self, model, batch, reference):
        if self.weight == 0:
            return {}
        part = batch["environment"]
        loss = answer_nll(model, part).sum() / count_labels(part["labels"]).sum()
        weights = [p for p in model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
        products = [w * g for w, g in zip(weights, gradients) if g is not None]
        penalty = (
            add_up(product.pow(2).sum() for product in products)
            if self.form == "elementwise"
            else add_up(product.sum() for product in products) ** 2
        )
        return {"invariance": Term(penalty * len(part["labels"]), "environment", "rows", factor=self.weight)}
