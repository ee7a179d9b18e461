"""Collation of training items into batches of named parts."""

import torch
from torch import Tensor

from ..core.encoding import Encoded, pad_rows
from .pairs import FILLER, MULTI_ROW_PARTS

Item = dict[str, list[tuple[int, Encoded]]]


class Collator:
    """Callable that pads a list of items, see `dataset.pairs.Pairs`, to a batch.

    Returns:
        {part name: part}, see `core.encoding.pad_rows`. Parts with several rows per item have `owner` [B],
        the number of the item that each row belongs to.
    """

    def __init__(self, pad_id: int):
        self.pad_id = pad_id

    def __call__(self, items: list[Item]) -> dict[str, dict[str, Tensor]]:
        # Fillers make the batches of all processes equal in number and are dropped. A batch of fillers alone
        # keeps one, with index -1: it counts for nothing, but its process must join collective operations.
        real = [item for item in items if all(index != FILLER for rows in item.values() for index, _ in rows)]
        return {name: self._part(name, real or items[:1]) for name in items[0]}

    def _part(self, name: str, items: list[Item]) -> dict[str, Tensor]:
        part = pad_rows([row for item in items for row in item[name]], self.pad_id)
        if name in MULTI_ROW_PARTS:
            part["owner"] = torch.tensor(
                [number for number, item in enumerate(items) for _ in item[name]], dtype=torch.long
            )
        return part
