"""What the start model said about the rows of a run, in the cheapest right way: looked up, or by one frozen copy."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from core import encoding, likelihood
from core.encoding import Encoded, pad_rows
from core.files import UserError, file_fingerprint, read_json, write_json
from core.generation import length_batches
from core.likelihood import row_nll
from model.loading import model_fingerprint
from unlearn.base import Part, logits


class StartModel:
    """The `Reference` of a run: log-probabilities per row from the cache, logits from a frozen copy (or None of them)."""

    def __init__(self, logprobs: Mapping[str, Tensor], frozen=None):
        self.logprobs, self.frozen = logprobs, frozen

    def logprob(self, name: str, part: Part) -> Tensor:
        """log p(answer given prompt) of each row, looked up by the rows' places in their data set."""
        return self.logprobs[name].to(part["index"].device)[part["index"]]

    @torch.no_grad()
    def logits(self, name: str, part: Part) -> Tensor:
        return logits(self.frozen, part)


def make_reference(model, needs: frozenset[str], rows: Mapping[str, Sequence[Encoded]], parts: frozenset[str], pad_id: int,
                   cache_dir: Path, batch_tokens: int, autocast: str = "fp32") -> StartModel | None:
    """Provide what `needs` names and nothing else; None when nothing is needed. `model` must still be the start model."""
    if not needs:
        return None
    unknown = needs - {"reference_logprob", "reference_logits"}
    if unknown:
        raise ValueError(f"no provider for {sorted(unknown)}")
    logprobs = {}
    if "reference_logprob" in needs:
        store = LogprobCache(model, cache_dir, autocast)
        logprobs = {name: store.logprobs(rows[name], pad_id, batch_tokens) for name in sorted(parts) if name == "forget"}
    frozen = copy.deepcopy(model).eval().requires_grad_(False) if "reference_logits" in needs else None
    return StartModel(logprobs, frozen)


@torch.no_grad()
def live_logprobs(model, part: Part) -> Tensor:
    """log p(answer given prompt) of each row by a forward pass in eval mode, [B]."""
    training = model.training
    model.eval()
    try:
        return -row_nll(logits(model, part), part["labels"])
    finally:
        model.train(training)


class LogprobCache:
    """One number per row and start model, kept on disk under `cache_dir`/reference.

    The file is keyed by the model's weights, the precision and the code that computes; inside, by the row's tokens. So a
    changed row, model or formula can never meet a stale number.
    """

    def __init__(self, model, cache_dir: Path, autocast: str = "fp32"):
        self.model, self.autocast = model, autocast
        code = file_fingerprint(likelihood.__file__, encoding.__file__, __file__)
        self.path = Path(cache_dir) / "reference" / f"{model_fingerprint(model)}-{autocast}-{code}.json"

    def logprobs(self, rows: Sequence[Encoded], pad_id: int, batch_tokens: int) -> Tensor:
        """log p of every row, [len(rows)], float32, computing only what the cache has not."""
        known = self._read()
        keys = [row.fingerprint for row in rows]
        missing = [i for i, key in enumerate(keys) if key not in known]
        for batch in length_batches([len(rows[i].input_ids) for i in missing], batch_tokens):
            chosen = [missing[k] for k in batch]
            part = pad_rows([(i, rows[i]) for i in chosen], pad_id)
            known |= zip((keys[i] for i in chosen), self._live(part))
        if missing:
            write_json(self.path, known)
        return torch.tensor([known[key] for key in keys])

    def _live(self, part: dict[str, Tensor]) -> list[float]:
        device = self.model.device
        on_device = {key: value.to(device) for key, value in part.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=self.autocast == "bf16"):
            return live_logprobs(self.model, on_device).tolist()

    def _read(self) -> dict[str, float]:
        """What an earlier run left. A file that is broken (a full disk, another program) is made anew, not trusted."""
        if not self.path.exists():
            return {}
        try:
            return read_json(self.path)
        except UserError:
            return {}
