"""`Wmdp_<subject>_<split>`: the corpora of WMDP (Li et al., arXiv:2403.03218) and its multiple choice
questions.

Forget corpora and questions come from the hub (bio's forget corpus is gated: ask for it there) or with
`dataset.data_dir` from `bio_forget.jsonl`, `bio_retain.jsonl`, `cyber_forget.jsonl`, `cyber_retain.jsonl`,
`wikitext.jsonl` (each with `text`) and `questions_bio.jsonl`, `questions_cyber.jsonl` (question, choices,
answer). `all_forget` joins both forget corpora. `wikitext` is wikitext-2's training split, the retain set of
most published runs; some of them used its test split under the name WMDP.
"""

from collections.abc import Sequence
from itertools import zip_longest

from ..core.json_fields import STRING
from .choices import choice_sets
from .hub_tables import HubTable, check_table, load_records, load_table
from .row_checks import checked_choices
from .sources import SOURCES, Source

HUB = {
    "bio_forget": ("cais/wmdp-bio-forget-corpus", None),
    "bio_retain": ("cais/wmdp-corpora", "bio-retain-corpus"),
    "cyber_forget": ("cais/wmdp-corpora", "cyber-forget-corpus"),
    "cyber_retain": ("cais/wmdp-corpora", "cyber-retain-corpus"),
    "wikitext": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
}
ALL = "all_forget"
PARTS = {ALL: ("bio_forget", "cyber_forget")}
"""Split -> the splits that it joins."""
SUBJECTS = {"bio": "biology", "cyber": "cybersecurity"}
HEAD = "The following are multiple choice questions (with answers) about {}.\n\n"
SHORTEST = 50
"""Characters; shorter documents are left out, as in the published runs."""


@SOURCES.register("Wmdp")
class Wmdp(Source):
    """Documents for training (`dataset.long_text` sets how long ones are cut); the questions of the subject
    for evaluation."""

    title = "Wmdp"
    splits = (*HUB, ALL)
    forget_splits = ("bio_forget", "cyber_forget", ALL)

    def check(self, split: str) -> None:
        for part in PARTS.get(split, (split,)):
            check_table(self.data_dir, f"{part}.jsonl")

    def rows(self, split: str) -> list[dict]:
        return [row for part in PARTS.get(split, (split,)) for row in self._documents(part)]

    def hub_tables(self, split: str) -> Sequence[HubTable]:
        return [_corpus(part) for part in PARTS.get(split, (split,))]

    def _documents(self, split: str) -> list[dict]:
        # STRING, not TEXT: the published corpora hold empty texts, which SHORTEST leaves out.
        table = load_table(self.data_dir, _corpus(split), {"text": STRING})
        return [
            {"id": f"{split}-{number}", "text": row["text"]}
            for number, row in enumerate(table)
            if len(row["text"]) >= SHORTEST
        ]

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        subjects = [part.partition("_")[0] for part in PARTS.get(split, (split,))]
        found = [self._questions(subject) for subject in subjects]
        # In turn: the first rows (evaluate.rows) are of all subjects.
        return {
            name: [row for turn in zip_longest(*(sets[name] for sets in found)) for row in turn if row]
            for name in found[0]
        }

    def _questions(self, subject: str) -> dict[str, list[dict]]:
        table = HubTable(f"questions_{subject}.jsonl", "cais/wmdp", f"wmdp-{subject}", "test")
        records = load_records(self.data_dir, table)
        rows = [
            {**checked_choices(place, row), "id": f"{subject}-{number}"}
            for number, (place, row) in enumerate(records)
        ]
        return choice_sets("forget", rows, HEAD.format(SUBJECTS[subject]))


def _corpus(split: str) -> HubTable:
    """The table of a corpus."""
    subject = split.partition("_")[0]
    layout = f"{split}.jsonl (text)"
    if subject in SUBJECTS:
        layout += f" and questions_{subject}.jsonl (question, choices, answer)"
    return HubTable(f"{split}.jsonl", *HUB[split], layout=layout)
