"""Towards one fixed answer, by a bounded divergence."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.files import UserError
from ...core.likelihood import IGNORE
from ...core.options import knob
from ..base import FORGET, Objective, Term
from ..scoring import answer_logits


@FORGET.register("JensUn")
@dataclass(frozen=True)
class JensUn(Objective):
    """JensUn (arXiv:2509.02820): Jensen-Shannon divergence between the model and a one-hot target at every
    answer token; the targets are the tokens of a short text, repeated over the answer. Between 0 and log 2.
    The paper's retain term is JSD.

    Formula: JSD(p, onehot(target token)), mean over tokens
    Cost: one forward and backward over the forget rows; no reference."""

    target: str = knob("No idea", "text whose tokens are the targets, in turn")
    needs = frozenset({"token_ids"})
    parts = frozenset({"forget"})
    scores_answers = True

    def terms(self, model, batch, reference):
        part = batch["forget"]
        pattern = reference.token_ids(self.target)
        if not pattern:
            raise UserError("unlearn.JensUn.target has no token; give a text")
        logp = (
            answer_logits(model, part)
            .log_softmax(-1)
            .gather(-1, cycled(pattern, part["labels"])[:, None])[:, 0]
        )
        return {"jensun": Term(divergence_from_one(logp).sum(), "forget", "tokens")}


def cycled(pattern: list[int], labels: Tensor) -> Tensor:
    """For every labelled token, [N] in reading order, the pattern's token at its place within its row's
    answer."""
    scored = labels[:, 1:] != IGNORE
    places = (scored.cumsum(-1) - 1)[scored] % len(pattern)
    return torch.tensor(pattern, device=labels.device)[places]


def divergence_from_one(logp: Tensor) -> Tensor:
    """JSD between a distribution and certainty of one token, from that token's log-probability."""
    p = logp.exp()
    return math.log(2) + (p * logp - (1 + p) * torch.log1p(p)) / 2
