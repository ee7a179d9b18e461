"""Training items to batches of named parts."""

from torch import Tensor

from core.encoding import Encoded, pad_rows
from dataset.pairs import FILLER


class Collator:
    """A list of items {part name: (index, Encoded)} to a batch {part name: part}, see `core.encoding.pad_rows`.

    Fillers are dropped. A batch of nothing else keeps one, with index -1: it is computed, as the other processes compute
    theirs at that moment, and counts for nothing."""

    def __init__(self, pad_id: int):
        self.pad_id = pad_id

    def __call__(self, items: list[dict[str, tuple[int, Encoded]]]) -> dict[str, dict[str, Tensor]]:
        real = [item for item in items if all(index != FILLER for index, _ in item.values())]
        return {name: pad_rows([item[name] for item in real or items[:1]], self.pad_id) for name in items[0]}
