"""Which rows a run trains on: the forget rows, and what goes with them."""

from collections.abc import Sequence, Set

import torch

from core.files import UserError
from dataset import load_rows
from dataset.alternates import mismatch, read_alternates, read_refusals, refuse
from model.settings import Settings


def training_texts(settings: Settings, parts: Set[str], alternates: str, forget: list[dict], rest: list[dict]) -> dict[str, list[dict]]:
    """The rows of every training part. `rest` are the forget rows that were not chosen."""
    data, texts = settings.dataset, {"forget": forget}
    if "retain" in parts or alternates == "mismatched":
        texts["retain"] = rest if data.self_retain else load_rows(data.retain_dataset_name, data.folder)
        if not texts["retain"]:
            raise UserError("dataset.self_retain: forget_ratio leaves no forget row to retain; lower it")
    if alternates == "refusals":
        texts["alternate"] = refuse(forget, read_refusals(data.refusals), data.dataset_seed)
    elif alternates == "mismatched":
        texts["alternate"] = mismatch(forget, texts["retain"], data.dataset_seed)
    elif alternates == "generated":
        texts["alternate"] = read_alternates(data.alternates_file, forget)
    if "retain_alternate" in parts:
        texts["retain_alternate"] = refuse(texts["retain"], read_refusals(data.refusals), data.dataset_seed)
    if "environment" in parts:
        texts["environment"] = load_rows(data.environment_dataset_name, data.environment_folder)
    return texts


def choose_forget_rows(rows: Sequence[dict], ratio: float, seed: int) -> tuple[list[dict], list[dict]]:
    """The rows to forget, a seeded choice in their old order, and the rest. `ratio` is a share up to 1, a count above."""
    count = min(len(rows), max(1, round(ratio * len(rows)) if ratio <= 1 else int(ratio)))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = set(order[:count])
    return [row for i, row in enumerate(rows) if i in chosen], [row for i, row in enumerate(rows) if i not in chosen]
