"""Gradient agreement: ascent on paraphrases where their gradients agree."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.files import UserError
from ...core.likelihood import IGNORE, count_labels
from ...core.options import knob
from ...core.sharding import whole
from ..base import REGULARIZERS, ExtraGradient, Objective, Part, Step, add_up
from ..gradients.agreement import MAX_TEXTS, Agreement, always_passes, as_agreed, null_rate, set_aside
from ..scoring import answer_nll, answer_row_nll

PART = "paraphrases"


@dataclass
class AgreementStats:
    """What there is to log of a step: summed over rows (or once for a window)."""

    passed: Tensor | float = 0.0
    reached: Tensor | float = 0.0
    null: float = 0.0
    masks: int = 0
    left_out: int = 0

    def stats(self, step: Step) -> dict[str, float]:
        """Means over all processes."""
        counts = [self.passed, self.reached, self.null, self.masks, self.left_out]
        sums = step.total(
            torch.tensor(
                [float(count) for count in counts], dtype=torch.float64, device=step.weights[0].device
            )
        )
        passed, reached, null, masks, left_out = sums.tolist()
        return {
            "gao_density": passed / reached if reached else 0.0,
            "gao_null": null / masks if masks else 0.0,
            "gao_rows_left_out": left_out,
        }


@REGULARIZERS.register("GAO")
@dataclass(frozen=True)
class GAO(Objective):
    """Gradient agreement optimisation: ascent on paraphrases of the forget answers (`make_paraphrases.py`) at
    those coordinates where the signs of the paraphrases' gradients agree, so that the meaning is forgotten
    and not one wording. From the released code (github.com/Zhong-Zhengyi/Ignore); no paper was found. The
    bare method name GAO is NPO+FT+GAO. A row with fewer than two paraphrases adds nothing.

    `gao_density` in the log is the share of coordinates that pass, of those that the paraphrases' gradients
    reach; `gao_null` is that share for independent random signs. Only what exceeds it is agreement, and of
    that the part which a coordinate owes to being reached by few paraphrases (embeddings of rare words, where
    they are not tied to the head) is none.

    Formula: -ρ mean_i clip(1[|mean_k sign g_ik| > τ] mean_k g_ik), g_ik = gradient of the mean NLL of
    paraphrase k of row i
    Cost: K forwards and backwards for each forget row (scope window: K over all of them), 9 bytes for each
    weight.
    """

    tau: float = knob(0.1, "a coordinate passes where |mean of signs| exceeds this", at_least=0, below=1)
    K: int = knob(6, "paraphrases of a row that are used", at_least=2, at_most=MAX_TEXTS)
    rho: float = knob(0.5, "weight of the agreed gradient; 0 leaves it out", at_least=0)
    clip: float = knob(1.0, "each coordinate of the agreed gradient is cut to this size", above=0)
    scope: str = knob(
        "sample",
        "signs are compared among the paraphrases of each row, or (window) among the mean gradients of the"
        " first, second, ... paraphrase over all rows of the step, which is cheaper",
        choices=("sample", "window"),
    )
    agreement: str = knob(
        "sign",
        "sign; and_mask, which also divides each tensor by its share of passing coordinates "
        "(arXiv:2009.00329); none, where every coordinate passes",
        choices=("sign", "and_mask", "none"),
    )
    positions: str = knob(
        "answer",
        "tokens of a paraphrase that count: the answer's, or all (released code)",
        choices=("answer", "all"),
    )
    pad_to: int = knob(
        0,
        "with positions all: pad paraphrases to this length and count the padding too (released code: 512)",
        at_least=0,
    )
    choice: str = knob(
        "first", "which paraphrases are used where a row has more than K", choices=("first", "shortest")
    )
    side = "forget"

    @property
    def parts(self):
        return frozenset({"forget", PART}) if self.adds_gradient else frozenset()

    @property
    def adds_gradient(self):
        return self.rho > 0

    def errors(self, run):
        if not self.adds_gradient:
            return
        if self.agreement != "none" and always_passes(self.tau, self.K):
            tau, even = math.ceil(1000 / self.K) / 1000, self.K - 1 if self.K == MAX_TEXTS else self.K + 1
            yield (
                f"unlearn.GAO.K {self.K} and unlearn.GAO.tau {self.tau:g}: {self.K} signs, an odd number,"
                f" sum to at least 1, and 1 > tau x K = {self.tau * self.K:.3g}: every coordinate passes and"
                f" nothing is compared; take K {even}, or tau {tau:g}, or set unlearn.GAO.agreement to none"
                " if that is meant"
            )
        if self.pad_to and self.positions != "all":
            yield (
                "unlearn.GAO.pad_to counts the padding of paraphrases, which needs unlearn.GAO.positions all"
            )

    def terms(self, model, batch, reference):
        return {}

    def extra_gradient(self, step: Step) -> ExtraGradient:
        stats = AgreementStats()
        vector = self._of_rows(step, stats) if self.scope == "sample" else self._of_window(step, stats)
        norm = torch.sqrt(whole(add_up(v.pow(2).sum(dtype=torch.float64) for v in vector))).item()
        return ExtraGradient([v.mul_(-self.rho) for v in vector], stats.stats(step) | {"gao_norm": norm})

    @property
    def _threshold(self) -> float | None:
        return None if self.agreement == "none" else self.tau

    def _of_rows(self, step: Step, stats: AgreementStats) -> list[Tensor]:
        """Mean over the step's rows of what the paraphrases of each agree on."""
        agreement = Agreement(step.weights)
        found = [torch.zeros_like(total) for total in agreement.sums]
        with set_aside(step.weights), as_agreed(step.weights, agreement.add):
            for texts in _by_row(step):
                if len(texts) < 2:
                    stats.left_out += 1
                    continue
                agreement.clear()
                for text in texts:
                    with step.autocast():
                        loss = answer_nll(step.model, text).mean()
                    loss.backward()
                agreement.texts = len(texts)
                for vector, value in zip(found, self._agreed(agreement, stats)):
                    vector += value
        return [step.total(v).div_(step.rows) for v in found]

    def _of_window(self, step: Step, stats: AgreementStats) -> list[Tensor]:
        """What the mean gradients of the first, second, ... paraphrase over the step's rows agree on."""
        agreement = Agreement(step.weights)
        with set_aside(step.weights):
            stats.left_out = sum(count < 2 for batch in step.batches for count in _counts(batch))
            for turn in range(self.K):
                texts = list(filter(None, (_turn(batch, turn) for batch in step.batches)))
                count = step.total(
                    torch.tensor(sum(len(text["labels"]) for text in texts), device=step.weights[0].device)
                ).item()
                if not count:
                    break
                for text in texts:
                    with step.autocast():
                        loss = (answer_row_nll(step.model, text) / count_labels(text["labels"])).sum() / count
                    loss.backward()
                agreement.texts += 1
                for place, weight in enumerate(step.weights):
                    agreement.add(
                        place, step.total(torch.zeros_like(weight) if weight.grad is None else weight.grad)
                    )
                    weight.grad = None
        return list(self._agreed(agreement, stats)) if agreement.texts >= 2 else agreement.sums

    def _agreed(self, agreement: Agreement, stats: AgreementStats) -> Iterator[Tensor]:
        """What is agreed on, for each weight; counted in the stats. UserError when a gradient was no number,
        which no sign would show."""
        if not agreement.is_finite():
            raise UserError(
                "the gradient of a paraphrase is not finite, so GAO has no direction: a lower unlearn.lr or"
                " unlearn.GAO.rho usually mends it"
            )
        stats.null += 1.0 if self._threshold is None else null_rate(self._threshold, agreement.texts)
        stats.masks += 1
        for value, passed, reached in agreement.agreed(
            self._threshold, self.clip, self.agreement == "and_mask"
        ):
            stats.passed, stats.reached = stats.passed + passed, stats.reached + reached
            yield value


def _by_row(step: Step) -> Iterator[list[Part]]:
    """For each leading row of the step its paraphrases, each a part of one row without padding."""
    for batch in step.batches:
        part = batch[PART]
        for owner in range(len(batch["forget"]["labels"])):
            yield [_lines(part, [line]) for line in (part["owner"] == owner).nonzero()[:, 0].tolist()]


def _counts(batch: Mapping[str, Part]) -> list[int]:
    """How many paraphrases each leading row of a micro-batch has."""
    return torch.bincount(batch[PART]["owner"], minlength=len(batch["forget"]["labels"])).tolist()


def _turn(batch: Mapping[str, Part], turn: int) -> Part | None:
    """The paraphrase number `turn` of every row that has so many, and two at least; None when no row has."""
    owners, counts = batch[PART]["owner"].tolist(), _counts(batch)
    lines = [
        line for line, owner in enumerate(owners) if counts[owner] >= 2 and owners[:line].count(owner) == turn
    ]
    return _lines(batch[PART], lines) if lines else None


def _lines(part: Part, lines: list[int]) -> Part:
    """Some rows of a part, without columns that are padding in all of them."""
    used = ((part["attention_mask"][lines] != 0) | (part["labels"][lines] != IGNORE)).any(0).nonzero()
    width = int(used[-1]) + 1
    return {key: value[lines, :width] if value.dim() == 2 else value[lines] for key, value in part.items()}
