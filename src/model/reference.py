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
from core.generation import length_batches, pad_id
from core.likelihood import count_labels
from model.loading import arithmetic, model_fingerprint, start_model
from unlearn.base import Part, answer_logits, answer_row_nll, hidden, logits
from unlearn.compose import Composition


class AnswerLogits:
    """Logits of one frozen model on answers, kept per row while they fit into `budget` bytes: a row that comes again costs no
    forward. Rows are named by part and place; when the budget is spent the rows that are there stay."""

    def __init__(self, ask: Callable[[Part], Tensor], budget: int):
        self.ask, self.budget = ask, budget
        self.kept: dict[tuple[str, int], Tensor] = {}
        self.bytes = 0

    def of(self, name: str, part: Part) -> Tensor:
        """Logits that score the labelled tokens of a part, [N, V] in reading order."""
        places = part["index"].tolist()
        missing = [line for line, place in enumerate(places) if (name, place) not in self.kept]
        fresh = dict(zip(missing, self._compute(part, missing)))
        for line, scores in fresh.items():
            self._keep((name, places[line]), scores)
        return torch.cat([fresh[line] if line in fresh else self.kept[name, place] for line, place in enumerate(places)])

    def _compute(self, part: Part, lines: list[int]) -> Sequence[Tensor]:
        """The logits of some rows of a part, one tensor per row."""
        if not lines:
            return []
        rows = {key: value[lines] for key, value in part.items()}
        return self.ask(rows).split(count_labels(rows["labels"]).tolist())

    def _keep(self, row: tuple[str, int], scores: Tensor) -> None:
        size = scores.numel() * scores.element_size()
        if self.bytes + size <= self.budget:
            self.kept[row] = scores.clone()
            self.bytes += size


class StartModel:
    """The `Reference` of a run: log-probabilities per row from the cache, logits and hidden states by the start model
    itself. With LoRA that is the base with its adapters off; else a frozen copy, which exists only if something needs it.

    `budget` is what answer logits may take, in bytes; `reinforced` a model for edits; `tokenizer` reads short texts."""

    def __init__(self, logprobs: Mapping[str, Tensor], model=None, as_it_was=contextlib.nullcontext, precision: str = "fp32",
                 budget: int = 0, reinforced=None, tokenizer=None):
        self.logprobs, self.model, self.as_it_was, self.precision = logprobs, model, as_it_was, precision
        self.tokenizer, self.reinforced_model = tokenizer, reinforced
        self.start_answers = AnswerLogits(lambda part: self._ask(lambda model: answer_logits(model, part)), budget)
        self.reinforced_answers = AnswerLogits(self._ask_reinforced, budget)

    def logprob(self, name: str, part: Part) -> Tensor:
        """log p(answer given prompt) of each row, looked up by the rows' places in their data set."""
        return self.logprobs[name].to(part["index"].device)[part["index"]]

    def answer_logits(self, name: str, part: Part) -> Tensor:
        return self.start_answers.of(name, part)

    def reinforced(self, name: str, part: Part) -> Tensor:
        return self.reinforced_answers.of(name, part)

    def logits(self, name: str, part: Part) -> Tensor:
        return self._ask(lambda model: logits(model, part))

    def hidden(self, name: str, part: Part, layer: int) -> Tensor:
        return self._ask(lambda model: hidden(model, part, layer))

    def token_ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def _ask(self, question: Callable) -> Tensor:
        """Put a question to the start model, leaving a shared base as it was found."""
        with in_eval_mode(self.model), self.as_it_was(), arithmetic(self.model.device, self.precision):
            return question(self.model)

    @torch.no_grad()
    def _ask_reinforced(self, part: Part) -> Tensor:
        with arithmetic(self.reinforced_model.device, self.precision):
            return answer_logits(self.reinforced_model, part)


def make_reference(model, tokenizer, composition: Composition, rows: Mapping[str, Sequence[Encoded]], cache_dir: Path,
                   batch_tokens: int, precision: str = "fp32", budget: int = 0, reinforced=None) -> StartModel | None:
    """Provide what the composition needs and nothing else; None when nothing is needed. `model` must still be the start
    model."""
    needs = composition.needs - {"double_backward"}
    if not needs:
        return None
    store = LogprobCache(model, cache_dir, precision) if composition.logprob_parts else None
    logprobs = {part: store.logprobs(rows[part], pad_id(tokenizer), batch_tokens) for part in sorted(composition.logprob_parts)}
    frozen = start_model(model) if needs & {"reference_logits", "reference_hidden"} else ()
    return StartModel(logprobs, *(frozen or (None, contextlib.nullcontext)), precision, budget, reinforced, tokenizer)


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
        return -answer_row_nll(model, part)


class LogprobCache:
    """One number per row and start model, kept on disk under `cache_dir`/reference.

    The file is keyed by the model's weights, the precision and the code that computes; inside, by the row's tokens. So a
    changed row, model or formula can never meet a stale number.
    """

    def __init__(self, model, cache_dir: Path, precision: str = "fp32"):
        self.model, self.precision = model, precision
        code = file_fingerprint(likelihood.__file__, encoding.__file__, __file__)
        self.path = Path(cache_dir) / "reference" / f"{model_fingerprint(model)}-{precision}-{model.device.type}-{code}.json"

    def logprobs(self, rows: Sequence[Encoded], pad: int, batch_tokens: int) -> Tensor:
        """log p of every row, [len(rows)], float32, computing only what the cache has not."""
        known = self._read()
        keys = [row.fingerprint for row in rows]
        missing = [i for i, key in enumerate(keys) if key not in known]
        for batch in length_batches([len(rows[i].input_ids) for i in missing], batch_tokens):
            chosen = [missing[k] for k in batch]
            part = pad_rows([(i, rows[i]) for i in chosen], pad)
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
