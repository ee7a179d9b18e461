"""What the start model said about the rows of a run, in the cheapest right way: looked up, or by one frozen copy."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from core import encoding, likelihood
from core.encoding import Encoded, pad_rows
from core.files import UserError, file_fingerprint, read_json, write_json
from core.generation import length_batches
from core.likelihood import row_nll
from model.loading import arithmetic, model_fingerprint, start_model
from unlearn.base import Part, hidden, logits


class StartModel:
    """The `Reference` of a run: log-probabilities per row from the cache, logits and hidden states by the start model
    itself. With LoRA that is the base with its adapters off; else a frozen copy, which exists only if something needs it."""

    def __init__(self, logprobs: Mapping[str, Tensor], model=None, as_it_was=contextlib.nullcontext, precision: str = "fp32"):
        self.logprobs, self.model, self.as_it_was, self.precision = logprobs, model, as_it_was, precision

    def logprob(self, name: str, part: Part) -> Tensor:
        """log p(answer given prompt) of each row, looked up by the rows' places in their data set."""
        return self.logprobs[name].to(part["index"].device)[part["index"]]

    def logits(self, name: str, part: Part) -> Tensor:
        return self._ask(lambda model: logits(model, part))

    def hidden(self, name: str, part: Part, layer: int) -> Tensor:
        return self._ask(lambda model: hidden(model, part, layer))

    @torch.no_grad()
    def _ask(self, question: Callable) -> Tensor:
        """Put a question to the start model, leaving a shared base as it was found."""
        with in_eval_mode(self.model), self.as_it_was(), arithmetic(self.model.device, self.precision):
            return question(self.model)


def make_reference(model, needs: frozenset[str], rows: Mapping[str, Sequence[Encoded]], pad_id: int, cache_dir: Path,
                   batch_tokens: int, precision: str = "fp32") -> StartModel | None:
    """Provide what `needs` names and nothing else; None when nothing is needed. `model` must still be the start model."""
    if not needs:
        return None
    logprobs = {}
    if "reference_logprob" in needs:
        store = LogprobCache(model, cache_dir, precision)
        logprobs["forget"] = store.logprobs(rows["forget"], pad_id, batch_tokens)
    if needs & {"reference_logits", "reference_hidden"}:
        return StartModel(logprobs, *start_model(model), precision)
    return StartModel(logprobs)


@contextlib.contextmanager
def in_eval_mode(model) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@torch.no_grad()
def live_logprobs(model, part: Part) -> Tensor:
    """log p(answer given prompt) of each row by a forward pass in eval mode, [B]."""
    with in_eval_mode(model):
        return -row_nll(logits(model, part), part["labels"])


class LogprobCache:
    """One number per row and start model, kept on disk under `cache_dir`/reference.

    The file is keyed by the model's weights, the precision and the code that computes; inside, by the row's tokens. So a
    changed row, model or formula can never meet a stale number.
    """

    def __init__(self, model, cache_dir: Path, precision: str = "fp32"):
        self.model, self.precision = model, precision
        code = file_fingerprint(likelihood.__file__, encoding.__file__, __file__)
        self.path = Path(cache_dir) / "reference" / f"{model_fingerprint(model)}-{precision}-{model.device.type}-{code}.json"

    def logprobs(self, rows: Sequence[Encoded], pad_id: int, batch_tokens: int) -> Tensor:
        """log p of every row, [len(rows)], float32, computing only what the cache has not."""
        known = self._read()
        keys = [row.fingerprint for row in rows]
        missing = [i for i, key in enumerate(keys) if key not in known]
        for batch in length_batches([len(rows[i].input_ids) for i in missing], batch_tokens):
            chosen = [missing[k] for k in batch]
            part = pad_rows([(i, rows[i]) for i in chosen], pad_id)
            values = self._live(part)
            wrecked = [rows[i].id for i, value in zip(chosen, values) if not math.isfinite(value)]
            if wrecked:
                raise UserError(f"the start model gives no finite log-probability for row {wrecked[0]!r}: it is broken")
            known |= zip((keys[i] for i in chosen), values)
        if missing:
            write_json(self.path, known)
        return torch.tensor([known[key] for key in keys])

    def _live(self, part: dict[str, Tensor]) -> list[float]:
        device = self.model.device
        on_device = {key: value.to(device) for key, value in part.items()}
        with arithmetic(device, self.precision):
            return live_logprobs(self.model, on_device).tolist()

    def _read(self) -> dict[str, float]:
        """What an earlier run left. A file that is broken (a full disk, another program) is made anew, not trusted."""
        if not self.path.exists():
            return {}
        try:
            return read_json(self.path)
        except UserError:
            return {}
