"""Questions with reasoning: what must survive (CoT sets), and STAR-1, what a safety run forgets.

    Reasoning_limo     LIMO (GAIR/LIMO)                        question, solution, answer
    Reasoning_s1k      s1K-1.1 (simplescaling/s1K-1.1)         question, deepseek_thinking_trajectory or
                                                               thinking_trajectories (s1K), solution
    Reasoning_gsm8k    GSM8K, training half (openai/gsm8k)     question, answer with `#### result`
    Star1_full         STAR-1 (UCSC-VLAA/STAR-1)               question, response
    RTofu_<split>      R-TOFU (arXiv:2505.15214)               question, answer, cot

From the hub, or with `dataset.data_dir` (`dataset.cot_data_dir` for the reasoning that is kept) from
`limo.jsonl`, `s1k.jsonl`, `gsm8k.jsonl`, `star1.jsonl`, and for R-TOFU the files of its repository's
data/tofu (`forget01.json`, ...). The reasoning of a row is its `cot`: what is done with it is said by the
settings.
"""

import re
from collections.abc import Callable
from pathlib import Path

from ..core.files import UserError
from ..core.json_fields import STRING
from ..core.thinking import split_trace
from .hub_tables import check_table, load_records
from .row_checks import checked_row
from .sources import SOURCES, Source
from .tofu_rows import Tofu

CALCULATION = re.compile(r"<<[^<>]*>>")


def _limo(row: dict) -> dict:
    if isinstance(row["answer"], bool) or not isinstance(row["answer"], str | int | float):
        raise TypeError
    return {"question": row["question"], "cot": row["solution"], "answer": str(row["answer"])}


def _s1k(row: dict) -> dict:
    cot = row.get("deepseek_thinking_trajectory") or row["thinking_trajectories"][0]
    return {"question": row["question"], "cot": cot, "answer": row.get("deepseek_attempt") or row["solution"]}


def _gsm8k(row: dict) -> dict:
    cot, _, answer = row["answer"].rpartition("####")
    return {"question": row["question"], "cot": CALCULATION.sub("", cot).strip(), "answer": answer.strip()}


HUB: dict[str, tuple[str, str | None, Callable[[dict], dict]]] = {
    "limo": ("GAIR/LIMO", None, _limo),
    "s1k": ("simplescaling/s1K-1.1", None, _s1k),
    "gsm8k": ("openai/gsm8k", "main", _gsm8k),
}


def _converted(name: str, records: list[tuple[str, dict]], convert: Callable[[dict], dict]) -> list[dict]:
    """Rows in our form; UserError naming the place of a row that lacks something."""
    rows = []
    for number, (place, row) in enumerate(records):
        try:
            made = convert(row)
            if not all(isinstance(value, str) for value in made.values()):
                raise TypeError
        except (KeyError, IndexError, TypeError, AttributeError):
            raise UserError(
                f"{place}: not in the published form (see src/dataset/reasoning_rows.py); it has "
                f"{', '.join(f'{key}: {type(value).__name__}' for key, value in row.items())}"
            ) from None
        # Reasoning and answer may be empty, which is for those who train on them to see.
        checked_row(place, made, {"cot": STRING, "answer": STRING})
        rows.append({"id": f"{name}-{number}", **made})
    return rows


@SOURCES.register("Reasoning")
class Reasoning(Source):
    """Reasoning about other things, to be kept."""

    title = "Reasoning"
    splits = tuple(HUB)
    forget_splits = ()

    def check(self, split: str) -> None:
        check_table(self.data_dir, f"{split}.jsonl")

    def rows(self, split: str) -> list[dict]:
        name, config, convert = HUB[split]
        return _converted(split, load_records(self.data_dir, f"{split}.jsonl", name, config), convert)


def _star1(row: dict) -> dict:
    thought = split_trace(row["response"])
    return {
        "text": row["question"],
        "question": row["question"],
        "cot": thought.trace if thought.closed else row["response"],
        "answer": thought.answer or row["response"],
    }


@SOURCES.register("Star1")
class Star1(Source):
    """STAR-1's questions as plain text, and its responses as their reasoning. Those are safe, deliberate
    refusals: steering them away (the published run) also adds_gradient away safe reasoning; `make_traces.py`
    writes the target model's own."""

    title = "Star1"
    measured = False
    splits = ("full",)
    forget_splits = ("full",)

    def check(self, split: str) -> None:
        check_table(self.data_dir, "star1.jsonl")

    def rows(self, split: str) -> list[dict]:
        return _converted(
            "star1", load_records(self.data_dir, "star1.jsonl", "UCSC-VLAA/STAR-1", None), _star1
        )

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        return {}


@SOURCES.register("RTofu", "R-TOFU")
class RTofu(Tofu):
    """TOFU's rows with reasoning traces; the measured sets are TOFU's files in the same folder, where they
    are there."""

    title = "RTofu"

    def check(self, split: str) -> None:
        self._folder()
        super().check(split)

    def rows(self, split: str) -> list[dict]:
        self.check(split)
        return super().rows(split)

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        found = {"forget": forget}
        for name, stem in {
            "retain": "retain_perturbed",
            "real": "real_authors_perturbed",
            "world": "world_facts_perturbed",
        }.items():
            if (self._folder() / f"{stem}.json").is_file():
                found[name] = self.rows(stem)
        return found

    def _folder(self) -> Path:
        """The user's folder; UserError when none is named."""
        if self.data_dir is None:
            raise UserError(
                "dataset.data_dir: RTofu needs the folder data/tofu of the repository AI-ISL/R-TOFU"
            )
        return self.data_dir
