"""Training items and their order. Both are functions of (seed, epoch, row), whatever the rank and the global
random state."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import torch
from torch.utils.data import Dataset, Sampler

from ..core.encoding import Encoded

ALIGNED_PARTS = ("forget", "alternate")
"""Parts whose rows belong to the forget rows, in their order. The first one that is there leads; without any,
the first part does. A part with k times as many rows holds k for each, and every epoch takes the next."""

FOLLOWS = {"retain_alternate": "retain"}
"""Parts whose row i belongs to row i of another part."""

MULTI_ROW_PARTS = ("traces", "paraphrases")
"""Parts that hold a list of rows for each leading row, all of which come with it."""

FILLER = -1
"""Stands where an epoch has no row left but another process still has."""

LENGTH_POOL = 3200
"""Rows that are sorted together when batches of like length are asked for."""


def flat(rows: Sequence[Sequence[Encoded]]) -> list[Encoded]:
    """The rows of a part that holds lists, one after the other."""
    return [row for several in rows for row in several]


def _places(rows: Sequence[Sequence]) -> list[range]:
    """Where each list lies among all rows."""
    ends = list(accumulate(map(len, rows)))
    return [range(end - len(several), end) for several, end in zip(rows, ends)]


class Pairs(Dataset):
    """Rows of a leading part, each with what goes with it: its counterpart in the parts of ALIGNED_PARTS, its
    list in those of MULTI_ROW_PARTS, a partner in others. An item is name -> [(place, row), ...].

    Items are addressed by (epoch, row). The partner of forget row i in epoch e is the next one of an endless
    walk through seeded permutations of the retain rows, at position e * len(forget) + i: every retain row
    comes before any comes twice. A row is named by its place in its data set; the address FILLER stands for
    no row at all, see `EpochSampler`.
    """

    def __init__(self, parts: Mapping[str, Sequence], seed: int):
        self.parts = {name: flat(rows) if name in MULTI_ROW_PARTS else rows for name, rows in parts.items()}
        self.lists = {name: _places(parts[name]) for name in MULTI_ROW_PARTS if name in parts}
        self.lead = next((name for name in ALIGNED_PARTS if name in parts), next(iter(parts)))
        self.seed = seed
        self.orders: dict[tuple[str, int], list[int]] = {}
        """The permutations of the last laps, by part and lap."""

    def __len__(self) -> int:
        return len(self.parts[self.lead])

    def __getitem__(self, address: tuple[int, int]) -> dict[str, list[tuple[int, Encoded]]]:
        epoch, row = address
        return {
            name: [(place, rows[place]) for place in self.places(name, epoch, row)]
            for name, rows in self.parts.items()
        }

    def places(self, name: str, epoch: int, row: int) -> Sequence[int]:
        """The rows of part `name` that come with leading row `row` in `epoch`."""
        if name in self.lists:
            return [FILLER] if row == FILLER else self.lists[name][row]
        return [self.place(name, epoch, row)]

    def place(self, name: str, epoch: int, row: int) -> int:
        """The one row of part `name` that comes with leading row `row` in `epoch`."""
        leader = FOLLOWS.get(name, name)
        if leader in (self.lead, *ALIGNED_PARTS):
            copies = len(self.parts[leader]) // len(self)
            return row * copies + epoch % copies
        return self.partner(leader, epoch, row)

    def partner(self, name: str, epoch: int, row: int) -> int:
        """The row of part `name` that goes with leading row `row` in `epoch`."""
        lap, place = divmod(epoch * len(self) + row, len(self.parts[name]))
        return self._permutation(name, lap)[place]

    def _permutation(self, name: str, lap: int) -> list[int]:
        if (name, lap) not in self.orders:
            order = list(range(len(self.parts[name])))
            random.Random(f"{self.seed}/{name}/{lap}").shuffle(order)
            self.orders = {key: kept for key, kept in self.orders.items() if key[1] >= lap - 1} | {
                (name, lap): order
            }
        return self.orders[name, lap]


class EpochSampler(Sampler):
    """Addresses (epoch, row) of one epoch in seeded order; the trainer calls `set_epoch`.

    With `group_size` (rows per optimizer step), rows of like length come together: each run of that many rows
    is cut from a sorted pool, and the runs are shuffled. The order does not depend on how a step is split
    into micro-batches.

    An epoch is filled up with FILLER addresses to a multiple of `multiple` (rows that all processes take at
    once), so that every process has equally many batches and no row counts twice.
    """

    def __init__(self, pairs: Pairs, seed: int, group_size: int = 0, multiple: int = 1):
        self.pairs, self.seed, self.group_size, self.multiple, self.epoch = (
            pairs,
            seed,
            group_size,
            multiple,
            0,
        )

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.pairs) // self.multiple) * self.multiple

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.pairs), generator=generator).tolist()
        if self.group_size:
            order = self._grouped(order, generator)
        order += [FILLER] * (len(self) - len(order))
        return iter([(self.epoch, row) for row in order])

    def _grouped(self, order: list[int], generator: torch.Generator) -> list[int]:
        lengths = [len(row.input_ids) for row in self.pairs.parts[self.pairs.lead]]
        groups = []
        for start in range(0, len(order), LENGTH_POOL):
            pool = sorted(order[start : start + LENGTH_POOL], key=lambda row: lengths[row])
            groups += [pool[k : k + self.group_size] for k in range(0, len(pool), self.group_size)]
        short = [group for group in groups if len(group) < self.group_size]
        full = [group for group in groups if len(group) == self.group_size]
        shuffled = [full[k] for k in torch.randperm(len(full), generator=generator).tolist()]
        return [row for group in shuffled + short for row in group]
