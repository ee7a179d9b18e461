"""What the reference model said about the rows of a run, in the cheapest right way: looked up, or by one
frozen copy."""

import contextlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core import encoding, likelihood
from ..core.batching import length_batches
from ..core.encoding import Encoded, pad_rows
from ..core.files import UserError, file_fingerprint, fingerprint, read_json, write_json
from ..core.generation import pad_id
from ..core.likelihood import count_labels
from ..core.sharding import any_process, is_sharded, reshard
from ..core.sharing import Share
from ..core.versions import versions
from ..unlearn import base
from ..unlearn.base import Part
from ..unlearn.blocks import hidden
from ..unlearn.composition import Composition
from ..unlearn.passes import chunked_head, joint_pass, row_packing
from ..unlearn.scoring import answer_logits, answer_row_nll, in_eval_mode, logits
from .load.loading import autocast_context, model_fingerprint, reference_model
from .run.progress import make_phase

log = logging.getLogger(__name__)

LIBRARIES = ("torch", "transformers")
"""Their versions decide log-probabilities too."""
MEASURED_ROWS = 32
"""Forget rows over which the size of activations is measured."""


class RowCache:
    """What a frozen model says about rows, one tensor [n, ...] per row, kept while it fits into `budget`
    bytes of the host's memory: a row that comes again costs no forward. Rows are named by part and place;
    when the budget is spent the rows that are there stay.

    `ask` gives the values of all rows of a part, [N, ...] in reading order; `lengths` how many of them each
    row has. With `together`, all processes ask where one of them must.
    """

    def __init__(
        self,
        ask: Callable[[Part], Tensor],
        lengths: Callable[[Part], Tensor],
        budget: int,
        together: bool = False,
    ):
        self.ask, self.lengths, self.budget, self.together = ask, lengths, budget, together
        self.kept: dict[tuple[str, int], Tensor] = {}
        self.bytes = 0

    def get(self, name: str, part: Part) -> Tensor:
        """The values of a part, [N, ...] in reading order."""
        places = part["index"].tolist()
        missing = [line for line, place in enumerate(places) if (name, place) not in self.kept]
        if self.together and any_process(bool(missing), part["index"].device):
            missing = missing or [0]
        fresh = dict(zip(missing, self._compute(part, missing)))
        for line, values in fresh.items():
            self._keep((name, places[line]), values)
        device = part["input_ids"].device
        return torch.cat(
            [
                fresh[line] if line in fresh else self.kept[name, place].to(device, non_blocking=True)
                for line, place in enumerate(places)
            ]
        )

    def _compute(self, part: Part, lines: list[int]) -> Sequence[Tensor]:
        """The values of some rows of a part, one tensor per row."""
        if not lines:
            return []
        rows = {key: value[lines] for key, value in part.items()}
        return self.ask(rows).split(self.lengths(rows).tolist())

    def _keep(self, row: tuple[str, int], values: Tensor) -> None:
        size = values.numel() * values.element_size()
        if row not in self.kept and self.bytes + size <= self.budget:
            self.kept[row] = values.clone() if values.device.type == "cpu" else values.cpu()
            self.bytes += size


def _answer_tokens(part: Part) -> Tensor:
    return count_labels(part["labels"])


def _attended_tokens(part: Part) -> Tensor:
    return part["attention_mask"].sum(-1)


@dataclass(eq=False)
class ReferenceModel:
    """The `Reference` of a run: log-probabilities per row from the cache, logits and hidden states by the
    initial model itself, see `model.load.loading.reference_model`."""

    logprobs: Mapping[str, Tensor]
    """Part -> log p(answer given prompt) of each of its rows, by the row's place in its data set."""
    model: Any = None
    initial_weights: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    """A context in which `model` has the initial weights, where it is also the model that is trained."""
    precision: str = "fp32"
    budget: int = 0
    """Bytes that kept logits, and kept hidden states of each block, may take."""
    reinforced_model: Any = None
    """The model of an edit."""
    tokenizer: Any = None
    forget: Sequence[Encoded] = ()
    """Forget rows, of which some give the size of activations."""

    def __post_init__(self) -> None:
        self.initial_answers = RowCache(
            lambda part: self._ask(lambda model: answer_logits(model, part)),
            _answer_tokens,
            self.budget,
            _shares_weights(self.model),
        )
        self.reinforced_answers = RowCache(
            self._ask_reinforced, _answer_tokens, self.budget, _shares_weights(self.reinforced_model)
        )
        self.states: dict[int, RowCache] = {}
        self.norms: dict[int, float] = {}

    def logprob(self, name: str, part: Part) -> Tensor:
        """log p(answer given prompt) of each row, looked up by the rows' places in their data set."""
        return self.logprobs[name].to(part["index"].device)[part["index"]]

    def answer_logits(self, name: str, part: Part) -> Tensor:
        return self.initial_answers.get(name, part)

    def reinforced(self, name: str, part: Part) -> Tensor:
        return self.reinforced_answers.get(name, part)

    def logits(self, name: str, part: Part) -> Tensor:
        return self._ask(lambda model: logits(model, part))

    def hidden(self, name: str, part: Part, layer: int) -> Tensor:
        if layer not in self.states:

            def attended_states(rows: Part) -> Tensor:
                return self.padded_hidden(name, rows, layer)[rows["attention_mask"].bool()]

            self.states[layer] = RowCache(
                attended_states, _attended_tokens, self.budget, _shares_weights(self.model)
            )
        found = self.states[layer].get(name, part)
        attended = part["attention_mask"].bool()
        states = found.new_zeros(*attended.shape, found.shape[-1])
        states[attended] = found
        return states

    def padded_hidden(self, name: str, part: Part, layer: int) -> Tensor:
        return self._ask(lambda model: hidden(model, part, layer))

    def activation_norm(self, layer: int) -> float:
        if layer not in self.norms:
            part = pad_rows(list(enumerate(self.forget[:MEASURED_ROWS])), pad_id(self.tokenizer))
            states = self.padded_hidden(
                "forget", {key: value.to(self.model.device) for key, value in part.items()}, layer
            )
            self.norms[layer] = states[part["attention_mask"].bool()].float().norm(dim=-1).median().item()
        return self.norms[layer]

    def token_ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def _ask(self, question: Callable) -> Tensor:
        """Evaluate a function of the reference model, leaving shared weights as they were found."""
        with (
            in_eval_mode(self.model),
            self.initial_weights(),
            autocast_context(self.model.device, self.precision),
        ):
            found = question(self.model)
        reshard(self.model)
        return found

    @torch.no_grad()
    def _ask_reinforced(self, part: Part) -> Tensor:
        with autocast_context(self.reinforced_model.device, self.precision):
            return answer_logits(self.reinforced_model, part)


def _shares_weights(model: Any) -> bool:
    return model is not None and is_sharded(model)


@dataclass(frozen=True)
class ReferenceOptions:
    """How reference values are computed and kept."""

    cache_dir: Path
    batch_tokens: int
    precision: str = "fp32"
    budget: int = 0
    """Bytes that kept logits, and kept hidden states of each block, may take."""
    quiet: bool = True
    """Whether the progress of the pass over the rows is hidden."""
    another: Callable[[], Any] | None = None
    """Loads the initial model once more."""
    share: Share = Share()
    """The part of this process in the rows whose values are computed before training."""


def make_reference(
    model,
    tokenizer,
    composition: Composition,
    rows: Mapping[str, Sequence[Encoded]],
    options: ReferenceOptions,
) -> ReferenceModel | None:
    """Provide what the composition needs of the reference model and nothing else.

    Args:
        model: the model that will be trained, still with its initial weights.
        tokenizer: the run's.
        composition: the objectives, whose `needs` decide.
        rows: the tokenised rows of every part.
        options: cache, precision and memory.

    Returns:
        The reference; None when nothing is needed.
    """
    needs = composition.needs - {"double_backward", "hidden"}
    if not needs:
        return None
    logprobs = {}
    if composition.logprob_parts:
        store = LogprobCache(model, options)
        for part in sorted(composition.logprob_parts):
            title = "" if options.quiet else f"reference values of the {part} rows"
            logprobs[part] = store.logprobs(rows[part], pad_id(tokenizer), title)
    frozen, initial_weights = None, contextlib.nullcontext
    if "reference_logits" in needs:
        frozen, initial_weights = reference_model(model, another=options.another)
    elif needs & {"reference_hidden", "activation_norm"}:
        # Blocks above the deepest one that is compared are never computed, and not kept either.
        frozen, initial_weights = reference_model(model, composition.deepest_layer)
    return ReferenceModel(
        logprobs,
        frozen,
        initial_weights,
        options.precision,
        options.budget,
        tokenizer=tokenizer,
        forget=rows.get("forget", ()),
    )


@torch.no_grad()
def live_logprobs(model, part: Part) -> Tensor:
    """log p(answer given prompt) of each row by a forward pass in eval mode, [B]."""
    with in_eval_mode(model):
        return -answer_row_nll(model, part)


class LogprobCache:
    """One number per row and reference model, kept on disk under `cache_dir`/reference.

    The file is keyed by the model's weights, the precision, and the code and libraries that compute; inside,
    by the row's tokens. So a changed row, model or formula can never meet a stale number.
    """

    def __init__(self, model, options: ReferenceOptions):
        self.model, self.precision, self.batch_tokens = model, options.precision, options.batch_tokens
        # Whole weights: each process computes all rows, which it needs without asking the others.
        self.share = replace(options.share, model=model) if is_sharded(model) else Share()
        passes = (chunked_head.__file__, joint_pass.__file__, row_packing.__file__)
        code = file_fingerprint(likelihood.__file__, encoding.__file__, base.__file__, *passes, __file__)
        key = fingerprint(code, versions(LIBRARIES))
        name = f"{model_fingerprint(model)}-{options.precision}-{model.device.type}-{key}.json"
        self.path = Path(options.cache_dir) / "reference" / name

    def logprobs(self, rows: Sequence[Encoded], pad: int, title: str = "") -> Tensor:
        """log p of every row, [len(rows)], float32, computing only what the cache has not; `title` is that of
        its progress, empty for none."""
        known = self.share.from_main(self._read)
        keys = [row.fingerprint for row in rows]
        missing = [row for row, key in zip(rows, keys) if key not in known]
        values = self.share.spread(missing, lambda own: self._computed(own, pad, title))
        known |= zip((row.fingerprint for row in missing), values)
        if missing and self.share.is_main:
            write_json(self.path, {"checksum": fingerprint(known), "logprobs": known})
        return torch.tensor([known[key] for key in keys])

    def _computed(self, rows: Sequence[Encoded], pad: int, title: str) -> list[float]:
        found: dict[int, float] = {}
        lengths = [len(row.input_ids) for row in rows]
        with make_phase(title, "rows", not title or not rows, len(rows)) as phase:
            for batch in length_batches(lengths, self.batch_tokens):
                values = self._live(pad_rows([(i, rows[i]) for i in batch], pad))
                wrecked = [rows[i].id for i, value in zip(batch, values) if not math.isfinite(value)]
                if wrecked:
                    raise UserError(
                        f"the reference model gives no finite log-probability for row {wrecked[0]!r}:"
                        " it is broken"
                    )
                found |= zip(batch, values)
                phase.update(len(found))
        return [found[i] for i in range(len(rows))]

    def _live(self, part: dict[str, Tensor]) -> list[float]:
        device = self.model.device
        on_device = {key: value.to(device) for key, value in part.items()}
        with autocast_context(device, self.precision):
            return live_logprobs(self.model, on_device).tolist()

    def _read(self) -> dict[str, float]:
        """What an earlier run left. A file that is broken (a full disk, another program), or does not hold
        what was written or what log-probabilities can be, is made anew, not trusted."""
        if not self.path.exists():
            return {}
        try:
            kept = read_json(self.path)
            known = kept["logprobs"]
            sound = kept["checksum"] == fingerprint(known) and all(
                isinstance(value, float) and math.isfinite(value) and value <= 0 for value in known.values()
            )
        except (UserError, KeyError, TypeError, AttributeError):
            sound, known = False, {}
        if sound:
            return known
        log.warning("%s is not what was written there; its values are computed again", self.path)
        return {}
