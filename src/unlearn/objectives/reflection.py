"""The reflection token penalty: words with which a reasoning model turns to think again are made unlikely."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F

from ...core.files import UserError
from ...core.options import knob
from ...core.thinking import TAGS
from ..base import REGULARIZERS, Objective, Term, batch_mean
from ..scoring import logits
from .representation import chosen, shares

log = logging.getLogger(__name__)

FOUND: WeakKeyDictionary = WeakKeyDictionary()
"""Reference -> words -> tokens, for as long as the reference lives."""

WORDS = (
    TAGS.open,
    "Wait",
    "wait",
    "but",
    "Okay",
    "Hmm",
    "Albeit",
    "However",
    "But",
    "Yet",
    "Still",
    "Nevertheless",
    "Though",
    "Meanwhile",
    "Whereas",
)


@REGULARIZERS.register("RTP")
@dataclass(frozen=True)
class RTP(Objective):
    """Reflection token penalty (a baseline of R2MU, arXiv:2506.12963): the mean probability of words of
    reflection. Counts to the forget side.

    Formula: λ p(reflection word), mean over tokens of the traces and over words
    Cost: one forward and backward through all blocks over the traces."""

    weight: float = knob(1.0, "weight of the penalty", at_least=0)
    words: tuple[str, ...] = knob(
        WORDS, "words to suppress; those that are one token, with or without a blank before, count"
    )
    over: str = knob(
        "traces",
        "where: in the reasoning traces of the forget rows, or in the forget rows themselves (released code)",
        choices=("traces", "forget"),
    )
    positions: str = knob(
        "attended",
        "tokens after which the words count: attended, those with labels, or all with padding "
        "(released code)",
        choices=("attended", "labels", "all"),
    )
    needs = frozenset({"token_ids"})
    side = "forget"

    def warnings(self, run):
        if TAGS.open in self.words and run.think_open != TAGS.open:
            yield f"unlearn.RTP.words has {TAGS.open}, but dataset.think_open is {run.think_open}"

    @property
    def parts(self):
        return frozenset({self.over} if self.weight else ())

    def counts(self, batch):
        if self.positions == "all" or not self.weight:
            return {}
        part = batch[self.over]
        return {self.over: {"reflection": (shares(part) * chosen(part, self.positions).sum(-1)).sum()}}

    def terms(self, model, batch, reference):
        if not self.weight:
            return {}
        part = batch[self.over]
        tokens = reflection_tokens(reference, self.words)
        likely = F.softmax(logits(model, part).float(), dim=-1)[..., tokens].mean(-1)
        if self.positions == "all":
            return {"reflection": replace(batch_mean(likely, self.over, part), factor=self.weight)}
        rows = torch.where(chosen(part, self.positions), likely, 0.0).sum(-1)
        return {"reflection": Term((rows * shares(part)).sum(), self.over, "reflection", factor=self.weight)}


def reflection_tokens(reference, words: tuple[str, ...]) -> list[int]:
    """The tokens that are one of the words, bare or after a blank. Words that are several tokens are left out
    and named once; UserError when none is left."""
    known = FOUND.setdefault(reference, {})
    if words not in known:
        known[words] = _find_tokens(reference, words)
    return known[words]


def _find_tokens(reference, words: Sequence[str]) -> list[int]:
    spellings = {
        word: [ids[0] for text in (word, f" {word}") if len(ids := reference.token_ids(text)) == 1]
        for word in words
    }
    several = [word for word, ids in spellings.items() if not ids]
    if len(several) == len(words):
        raise UserError(
            f"unlearn.RTP.words: none of {', '.join(words)} is a single token for this tokenizer; name some"
            " that are"
        )
    if several:
        log.warning("unlearn.RTP.words: left out, as they are several tokens here: %s", ", ".join(several))
    return sorted({token for ids in spellings.values() for token in ids})
