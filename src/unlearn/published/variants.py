"""Losses as published code computes them where that is not the loss of its paper. None of them is a mean over
rows or tokens of its own: their values depend on how a step is split into micro-batches, and on padding."""

import torch.nn.functional as F
from torch import Tensor

from ...core.likelihood import IGNORE, count_labels, token_kl
from ..base import Part, Reference, Term, batch_mean
from ..scoring import answer_row_nll, logits


def npo(objective, model, part: Part, reference: Reference) -> Term:
    """NPO on one token mean of the micro-batch (`batch_mean`: WAGLE, SOUL), or on differences of logits that
    are no likelihood (`raw_logits`: MUSE)."""
    if objective.reduction == "raw_logits":
        value = logits(model, part) - reference.logits("forget", part)
    else:
        log_ratio = -answer_row_nll(model, part) - reference.logprob("forget", part)
        value = log_ratio.sum() / count_labels(part["labels"]).sum()
    return batch_mean(objective.penalty(value), "forget", part)


def simnpo(objective, model, part: Part) -> Term:
    """SimNPO on the mean NLL of the micro-batch (`batch_mean`: its WMDP code), or on logits that are no
    likelihood (`raw_logits`: its MUSE code)."""
    if objective.reduction == "raw_logits":
        value = -logits(model, part)
    else:
        value = answer_row_nll(model, part).sum() / count_labels(part["labels"]).sum()
    return batch_mean(objective.penalty(value), "forget", part)


def undial(objective, model, part: Part, reference: Reference) -> Term:
    """UNDIAL over prompt and padding too (OpenUnlearning): their label -100 lowers the logit V - 100."""
    teacher, student = (scores[:, :-1] for scores in (reference.logits("forget", part), logits(model, part)))
    targets = part["labels"][:, 1:] % student.shape[-1]
    return batch_mean(objective.distil(teacher, student, targets), "forget", part)


def pdu(objective, model, part: Part) -> Term:
    """PDU's margin one place too late (OpenUnlearning): labels select logits without the shift by one."""
    return batch_mean(objective.margin(logits(model, part)[part["labels"] != IGNORE]), "forget", part)


def cross_entropy_of_models(start: Tensor, ours: Tensor) -> Tensor:
    """-sum p log p_ref over the vocabulary, which the WAGLE family takes for a KL divergence. Its least value
    is not at p_ref."""
    return -(F.softmax(ours, dim=-1) * F.log_softmax(start, dim=-1)).sum(-1)


def forget_kl(objective, model, part: Part, reference: Reference) -> Term:
    """WAGLE's ascent on `cross_entropy_of_models` over every position."""
    start, ours = _both_logits("forget", model, part, reference)
    return batch_mean(-objective.capped(cross_entropy_of_models(start, ours)), "forget", part)


def retain_kl(objective, model, part: Part, reference: Reference) -> Term:
    """The retain KL over every position (`all`: OpenUnlearning, TOFU), WAGLE's form of it (`seed_ce`), or the
    formula on logits, no divergence (`raw_logits`: MUSE)."""
    start, ours = _both_logits("retain", model, part, reference)
    if objective.form == "raw_logits":
        return Term((start.exp() * (start - ours)).sum(), "retain", "rows")
    divergence = token_kl if objective.form == "all" else cross_entropy_of_models
    return batch_mean(divergence(start, ours), "retain", part)


def _both_logits(name: str, model, part: Part, reference: Reference) -> tuple[Tensor, Tensor]:
    """Logits of the reference model and of the model, [B, T, V] in float32."""
    return reference.logits(name, part).float(), logits(model, part).float()
