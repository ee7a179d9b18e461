"""Training items to batches of named parts."""

from torch import Tensor

from core.encoding import Encoded, pad_rows


class Collator:
    """A list of items {part name: (index, Encoded)} to a batch {part name: part}, see `core.encoding.pad_rows`."""

    def __init__(self, pad_id: int):
        self.pad_id = pad_id

    def __call__(self, items: list[dict[str, tuple[int, Encoded]]]) -> dict[str, dict[str, Tensor]]:
        return {name: pad_rows([item[name] for item in items], self.pad_id) for name in items[0]}
