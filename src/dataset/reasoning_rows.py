"""Questions with reasoning: CoT sets to retain, and STAR-1, the forget set of safety runs.

    Reasoning_limo     LIMO (GAIR/LIMO)                        question, solution, answer
    Reasoning_s1k      s1K-1.1 (simplescaling/s1K-1.1)         question, deepseek_thinking_trajectory or
                                                               thinking_trajectories (s1K), solution
    Reasoning_gsm8k    GSM8K, training half (openai/gsm8k)     question, answer with `#### result`
    Star1_full         STAR-1 (UCSC-VLAA/STAR-1)               question, response
    RTofu_<split>      R-TOFU (arXiv:2505.15214)               question, answer, cot

From the hub, or with `dataset.data_dir` (`dataset.cot_data_dir` for retained reasoning) from `limo.jsonl`,
`s1k.jsonl`, `gsm8k.jsonl`, `star1.jsonl`, and for R-TOFU the files of its repository's data/tofu
(`forget01.json`, ...). The reasoning of a row is its `cot`; settings control its use.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ..core.files import UserError
from ..core.json_fields import STRING
from ..core.thinking import split_trace
from .hub_tables import HubTable, check_table, load_records
from .row_checks import checked_row
from .sources import SOURCES, Source
from .tofu_rows import EVALUATION, Tofu

CALCULATION = re.compile(r"<<[^<>]*>>")
"""GSM8K's calculator annotations, which are no part of the reasoning."""


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
    """Rows in this project's form. UserError naming the place of a row in another form than published."""
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
        # Reasoning and answer may be empty here: it matters only where settings train on them.
        checked_row(place, made, {"cot": STRING, "answer": STRING})
        rows.append({"id": f"{name}-{number}", **made})
    return rows


@SOURCES.register("Reasoning")
class Reasoning(Source):
    """Reasoning on other topics, to retain."""

    title = "Reasoning"
    splits = tuple(HUB)
    forget_splits = ()

    def check(self, split: str) -> None:
        check_table(self.data_dir, f"{split}.jsonl")

    def rows(self, split: str) -> list[dict]:
        return _converted(split, load_records(self.data_dir, self.hub_tables(split)[0]), HUB[split][2])

    def hub_tables(self, split: str) -> Sequence[HubTable]:
        name, config, _ = HUB[split]
        return (HubTable(f"{split}.jsonl", name, config),)


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
    """STAR-1's questions as plain text, with its responses as their reasoning."""

    # The responses are safe, deliberate refusals: unlearning them, as the published run does, also unlearns
    # safe reasoning. make_traces.py writes the target model's own traces instead.

    title = "Star1"
    measured = False
    splits = ("full",)
    forget_splits = ("full",)

    def check(self, split: str) -> None:
        check_table(self.data_dir, "star1.jsonl")

    def rows(self, split: str) -> list[dict]:
        return _converted("star1", load_records(self.data_dir, self.hub_tables(split)[0]), _star1)

    def hub_tables(self, split: str) -> Sequence[HubTable]:
        return (HubTable("star1.jsonl", "UCSC-VLAA/STAR-1", None),)

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        return {}


@SOURCES.register("RTofu", "R-TOFU")
class RTofu(Tofu):
    """TOFU's rows with reasoning traces; TOFU's evaluation files in the same folder are optional."""

    title = "RTofu"

    def hub_tables(self, split: str) -> Sequence[HubTable]:
        return ()

    def check(self, split: str) -> None:
        self._folder()
        super().check(split)

    def rows(self, split: str) -> list[dict]:
        self.check(split)
        return super().rows(split)

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        found = {"forget": forget}
        for name, stem in EVALUATION.items():
            if (self._folder() / f"{stem}.json").is_file():
                found[name] = self.rows(stem)
        return found

    def _folder(self) -> Path:
        """The user's folder. UserError when none is set."""
        if self.data_dir is None:
            raise UserError(
                "dataset.data_dir: RTofu needs the folder data/tofu of the repository AI-ISL/R-TOFU"
            )
        return self.data_dir
