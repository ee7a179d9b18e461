"""Several short rows on one line, so that a forward pass computes little padding. Rows do not see each other:
each attends to itself alone and counts its positions from 0."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapreplace

import torch
from torch import Tensor

from ..base import Part

PADDING = -1
"""The row to which places that hold no token belong."""
LEAST_SAVING = 0.03
"""Share of the lines below which packing is not worth its attention mask."""


@dataclass(frozen=True)
class Lines:
    """Rows of several batch parts on shared lines.

    Args:
        input_ids: [L, C].
        position_ids: the place of each token within its row, [L, C].
        row: the number of the row that each token belongs to, [L, C].
        places: for each part, where its tokens are in the flat lines, [B, T]; 0 on padding.
    """

    input_ids: Tensor
    position_ids: Tensor
    row: Tensor
    places: Sequence[Tensor]

    def attention(self) -> Tensor:
        """Which token sees which: earlier ones of its own row, and itself; boolean, [L, 1, C, C]."""
        width = self.row.shape[1]
        earlier = torch.ones(width, width, dtype=torch.bool, device=self.row.device).tril()
        return ((self.row[:, :, None] == self.row[:, None, :]) & earlier)[:, None]


def first_fit(lengths: Sequence[int]) -> list[list[int]]:
    """Row numbers of each line: the longest row first, each on the first line with room. A line is as long as
    the longest row."""
    width, lines, room = max(lengths), [], []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        line = next((line for line, left in enumerate(room) if left >= lengths[row]), len(lines))
        if line == len(lines):
            lines.append([])
            room.append(width)
        lines[line].append(row)
        room[line] -= lengths[row]
    return lines


def balanced(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Row numbers of `count` lines: the longest row first, each on the line that is shortest so far."""
    lines: list[list[int]] = [[] for _ in range(count)]
    shortest = [(0, line) for line in range(count)]
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        tokens, line = shortest[0]
        lines[line].append(row)
        heapreplace(shortest, (tokens + lengths[row], line))
    return lines


def line_width(lengths: Sequence[int], lines: Sequence[Sequence[int]]) -> int:
    """Tokens of the longest line."""
    return max(sum(lengths[row] for row in line) for line in lines)


def choose_lines(lengths: Sequence[int], hidden_size: int) -> list[list[int]]:
    """The cheapest lines where they save more than their mask costs, else a line for each row. Lines longer
    than the longest row have less padding and more attention: with a mask it computes what causal attention
    skips, 2 C D operations of some 24 D² per token and block."""
    best, least = [[row] for row in range(len(lengths))], (1 - LEAST_SAVING) * len(lengths) * max(lengths)
    # More lines would leave rows on lines of their own, which `first_fit` has too.
    counts = range(1, len(lengths) // 2 + 1)
    for lines in (first_fit(lengths), *(balanced(lengths, count) for count in counts)):
        width = line_width(lengths, lines)
        cost = len(lines) * width * (1 + width / (12 * hidden_size))
        if cost < least and len(lines) < len(lengths):
            best, least = lines, cost
    return best


def row_lengths(parts: Sequence[Part]) -> list[int]:
    """Tokens of every row of the parts, one part after the other."""
    return torch.cat([part["attention_mask"].sum(1) for part in parts]).tolist()


def lay_out(parts: Sequence[Part], lengths: Sequence[int], lines: Sequence[Sequence[int]]) -> Lines:
    """The rows of the parts on the lines.

    Args:
        parts: input_ids and attention_mask [B, T]; T may differ.
        lengths: tokens of every row, see `row_lengths`.
        lines: row numbers of each line, see `first_fit`.
    """
    device = parts[0]["input_ids"].device
    width = line_width(lengths, lines)
    starts = [0] * len(lengths)
    for number, line in enumerate(lines):
        place = number * width
        for row in line:
            starts[row] = place
            place += lengths[row]
    start = torch.tensor(starts, device=device)
    flat = {"input_ids": 0, "position_ids": 0, "row": PADDING}
    found = {
        name: torch.full((len(lines) * width,), fill, device=device, dtype=torch.long)
        for name, fill in flat.items()
    }
    places, first = [], 0
    for part in parts:
        attended, rows = part["attention_mask"].bool(), len(part["input_ids"])
        position = (attended.cumsum(1) - 1).clamp(min=0)
        place = start[first : first + rows, None] + position
        number = torch.arange(first, first + rows, device=device)[:, None].expand_as(place)
        for name, values in zip(flat, (part["input_ids"], position, number)):
            found[name][place[attended]] = values[attended]
        places.append(place.masked_fill(~attended, 0))
        first += rows
    return Lines(**{name: values.view(len(lines), width) for name, values in found.items()}, places=places)
