"""The hidden states of the labelled tokens of several batch parts from one forward pass.

A loss scores the answers of two or three parts of a micro-batch. Their rows go through the model together,
short ones on one line, and the language-model head sees labelled tokens alone. Every row gets the numbers
that it gets by itself, up to rounding."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Module

from ...core.likelihood import IGNORE
from ..base import Part
from .model_head import PROBED, inner, probing, without_head
from .row_packing import choose_lines, lay_out, row_lengths

ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-2}
"""Largest difference, relative to the largest value, that is rounding (TF32 in float32); elsewhere .05."""

_PACKS: WeakKeyDictionary[Module, bool] = WeakKeyDictionary()


class JointPass:
    """A model that is asked for the answers of some parts, and makes one forward pass for all of them when it
    is first asked. Functions of `scoring` take it in place of the model.

    Args:
        model: the model, under whatever wrappers it has.
        parts: what it will be asked for: input_ids, attention_mask and labels, [B, T]. Any other is a pass
            of its own.
    """

    def __init__(self, model: Module, parts: Sequence[Part]):
        self.model, self.parts = model, parts
        self._found: dict[int, tuple[Tensor, Tensor]] = {}

    def labelled(self, part: Part) -> tuple[Tensor, Tensor]:
        """Hidden states that predict the labelled tokens of a part, [N, D] in reading order, and those
        tokens, [N]. The model's head must be apart (`head_is_apart`)."""
        key = id(part["input_ids"])
        if key not in self._found:
            together = any(one["input_ids"] is part["input_ids"] for one in self.parts)
            self._run(self.parts if together else [part])
        states, places = self._found[key]
        targets = part["labels"][:, 1:]
        wanted = targets != IGNORE
        return states[places[:, :-1][wanted]], targets[wanted]

    @property
    def head(self) -> Any:
        return inner(self.model).get_output_embeddings()

    def _run(self, parts: Sequence[Part]) -> None:
        """The states of the parts, with where their tokens are in them."""
        if not can_pack(self.model) or any(map(_scores_padding, parts)):
            for part in parts:
                states = _states(
                    self.model, input_ids=part["input_ids"], attention_mask=part["attention_mask"]
                )
                places = torch.arange(len(states), device=states.device).view(part["input_ids"].shape)
                self._found[id(part["input_ids"])] = states, places
            return
        lengths = row_lengths(parts)
        lines = choose_lines(lengths, inner(self.model).config.get_text_config().hidden_size)
        laid = lay_out(parts, lengths, lines)
        # Padding follows a row that has its line to itself: causal attention needs no mask.
        packed = len(lines) < len(lengths)
        more = {"position_ids": laid.position_ids, "attention_mask": laid.attention()} if packed else {}
        states = _states(self.model, input_ids=laid.input_ids, **more)
        for part, places in zip(parts, laid.places):
            self._found[id(part["input_ids"])] = states, places


def can_pack(model: Module) -> bool:
    """Do rows on one line leave each other alone in this model? Tried once on a few tokens."""
    bare = inner(model)
    if not takes_masks(bare.config):
        return False
    if bare not in _PACKS:
        _PACKS[bare] = _rows_stay_apart(bare)
    return _PACKS[bare]


def takes_masks(config: Any) -> bool:
    """Can attention be told which token sees which? By a model's config."""
    config = config.get_text_config()
    # Eager attention adds a mask to its scores, flash attention takes none of two dimensions.
    return config._attn_implementation == "sdpa" and not getattr(config, "sliding_window", None)


def _states(model: Any, **inputs: Tensor) -> Tensor:
    """Hidden states under the head, one line after the other, [L x C, D]."""
    with without_head(model):
        return model(**inputs, use_cache=False).logits.flatten(0, 1)


def _scores_padding(part: Part) -> bool:
    """Has padding a label, as in some published code? What it attends to depends on its place in the
    batch."""
    return bool(((part["labels"] != IGNORE) & (part["attention_mask"] == 0)).any())


def _rows_stay_apart(model: Any) -> bool:
    """Is a packed row what it is by itself, and to the bit the same beside another neighbour?"""
    count = model.config.get_text_config().vocab_size
    ids = torch.arange(3 * PROBED, device=model.device).view(3, PROBED) % count
    part = lambda *rows: [
        {"input_ids": ids[[row]], "attention_mask": torch.ones_like(ids[[row]])} for row in rows
    ]

    def packed(*rows: int) -> Tensor:
        laid = lay_out(part(*rows), [PROBED] * 2, [[0, 1]])
        return _states(
            model,
            input_ids=laid.input_ids,
            position_ids=laid.position_ids,
            attention_mask=laid.attention(),
        )[PROBED:]

    try:
        with probing(model):
            alone = _states(model, input_ids=ids[[2]])
            first, second = packed(0, 2), packed(1, 2)
    except (TypeError, ValueError, RuntimeError):
        return False
    limit = ROUNDING.get(alone.dtype, 0.05) * alone.abs().max()
    return torch.equal(first, second) and bool((first - alone).abs().max() <= limit)
