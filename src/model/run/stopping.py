"""What stop rules measure: KL to the reference model, and losses of forget rows beside holdout rows."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from ...core.batching import length_batches
from ...core.encoding import Encoded, pad_rows
from ...core.likelihood import token_kl
from ...metrics.ks_test import ks_test
from ...unlearn.scoring import answer_logits, in_eval_mode
from ..load.loading import autocast_context

log = logging.getLogger(__name__)

KL_ROWS = 128
"""Rows of the KL budget, as in RepSelect's protocol (arXiv:2606.17168)."""
WIDTH = 4
"""Bytes of a kept logit."""


@dataclass(frozen=True)
class KlOptions:
    """Limits and arithmetic of `ReferenceKl`.

    Args:
        pad: Id of padding.
        batch_tokens: Padded tokens per batch.
        budget: Bytes that the kept logits may take.
        precision: Of the run, see `load.loading.resolve_precision`.
    """

    pad: int
    batch_tokens: int
    budget: int
    precision: str = "fp32"


class ReferenceKl:
    """Mean KL(reference || model) per answer token of some rows, in nats; exactly 0 for the reference model.

    KL = sum over answer tokens and the vocabulary of p_ref (log p_ref - log p), over the number of answer
    tokens. The logits of the reference model are kept, [N, V] in float32 on the CPU: at most `KL_ROWS` rows,
    fewer where their logits would take more than the budget.

    Args:
        model: the model before its first step, which is the reference.
        rows: rows with answers.
        options: limits and arithmetic.
    """

    def __init__(self, model, rows: Sequence[Encoded], options: KlOptions):
        self.options = options
        chosen = _affordable(_spread(rows, KL_ROWS), model.config.vocab_size, options.budget)
        lengths = [len(row.input_ids) for row in chosen]
        self.parts = [
            pad_rows([(i, chosen[i]) for i in batch], options.pad)
            for batch in length_batches(lengths, options.batch_tokens)
        ]
        self.rows = len(chosen)
        self.kept = [self._logits(model, part).cpu() for part in self.parts]
        self.tokens = sum(len(logits) for logits in self.kept)

    def of(self, model) -> float:
        """The mean KL of a model; NaN where its logits are."""
        total = 0.0
        for part, reference in zip(self.parts, self.kept):
            logits = self._logits(model, part)
            total += token_kl(reference.to(logits.device), logits).double().sum().item()
        return total / self.tokens

    @torch.no_grad()
    def _logits(self, model, part: dict[str, Tensor]) -> Tensor:
        device = model.device
        on_device = {name: tensor.to(device) for name, tensor in part.items()}
        with in_eval_mode(model), autocast_context(device, self.options.precision):
            return answer_logits(model, on_device)


def _spread(rows: Sequence[Encoded], most: int) -> list[Encoded]:
    """At most so many rows, evenly over all."""
    count = min(most, len(rows))
    return [rows[k * len(rows) // count] for k in range(count)]


def _affordable(rows: list[Encoded], vocabulary: int, budget: int) -> list[Encoded]:
    """The first rows whose logits fit into the budget, at least one."""
    kept, size = [], 0
    for row in rows:
        size += (len(row.input_ids) - row.prompt_length) * vocabulary * WIDTH
        if kept and size > budget:
            log.warning(
                "unlearn.stop: the initial model's logits of %d of %d rows fit into"
                " overall.reference_cache_gb; the KL is measured on those",
                len(kept),
                len(rows),
            )
            break
        kept.append(row)
    return kept


def holdout_test(samples: dict[str, list[dict]]) -> dict[str, float | None]:
    """Two-sample Kolmogorov-Smirnov test between per-row losses (mean NLL per token) of forget and holdout
    rows: p-value (two-sided, as for forget_quality), and the median loss of each set. None where a set has no
    scored row."""
    losses = {
        name: [row["mia_loss"] for row in samples.get(name, ()) if row.get("mia_loss") is not None]
        for name in ("forget", "holdout")
    }
    if not all(losses.values()):
        return dict.fromkeys(("p", "forget_median", "holdout_median"))
    return {
        "p": ks_test(losses["forget"], losses["holdout"]).p,
        "forget_median": median(losses["forget"]),
        "holdout_median": median(losses["holdout"]),
    }


class Snapshots:
    """Trained weights of evaluated steps, one file each, in a folder that is removed when the run is whole.

    A step checkpoint that is resumed from needs the snapshots that counted when it was written: they are
    pinned until the next checkpoint.
    """

    def __init__(self, folder: Path):
        self.folder, self.pinned = folder, frozenset[int]()

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step}.pt"

    def begin(self, step: int) -> None:
        """Remove what an earlier or interrupted training left after `step`; pin the rest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {self._step(path) for path in self.folder.glob("step-*.pt") if self._step(path) <= step}
        self.pinned = frozenset(kept)
        self.keep(kept)

    def save(self, step: int, weights: dict[str, Tensor]) -> None:
        values = {name: weight.detach().cpu() for name, weight in weights.items()}
        temporary = self.path(step).with_suffix(".tmp")
        torch.save(values, temporary)
        temporary.rename(self.path(step))

    def load(self, step: int) -> dict[str, Tensor]:
        return torch.load(self.path(step), weights_only=True, map_location="cpu")

    def keep(self, steps: set[int]) -> None:
        """Remove all but these steps and the pinned ones."""
        for path in self.folder.glob("step-*"):
            if path.suffix == ".tmp" or self._step(path) not in steps | self.pinned:
                path.unlink()

    def pin(self, steps: set[int]) -> None:
        """A step checkpoint was written: these steps alone count from now on."""
        self.pinned = frozenset(steps)
        self.keep(steps)

    @staticmethod
    def _step(path: Path) -> int:
        return int(path.stem.removeprefix("step-"))
