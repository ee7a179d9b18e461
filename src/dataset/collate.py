"""Training items to batches of named parts."""

import torch
from torch import Tensor

from ..core.encoding import Encoded, pad_rows
from .pairs import FILLER, MULTI_ROW_PARTS

Item = dict[str, list[tuple[int, Encoded]]]


class Collator:
    """A list of items, see `dataset.pairs.Pairs`, to a batch {part name: part}, see `core.encoding.pad_rows`.
    Parts that hold several rows for an item have `owner` [B], the number of the item that each row belongs
    to.

    Fillers are dropped. A batch of nothing else keeps one, with index -1: it is computed, as the other
    processes compute theirs at that moment, and counts for nothing."""

    def __init__(self, pad_id: int):
        self.pad_id = pad_id

    def __call__(self, items: list[Item]) -> dict[str, dict[str, Tensor]]:
        real = [item for item in items if all(index != FILLER for rows in item.values() for index, _ in rows)]
        return {name: self._part(name, real or items[:1]) for name in items[0]}

    def _part(self, name: str, items: list[Item]) -> dict[str, Tensor]:
        part = pad_rows([row for item in items for row in item[name]], self.pad_id)
        if name in MULTI_ROW_PARTS:
            part["owner"] = torch.tensor(
                [number for number, item in enumerate(items) for _ in item[name]], dtype=torch.long
            )
        return part
