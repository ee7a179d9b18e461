"""Batches of rows by a budget of tokens, halved where the memory does not hold them."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from .files import UserError

SMALL_BATCH = 8
"""A batch of less than this part of its tokens is small."""


def length_batches(lengths: list[int], batch_tokens: int, narrow: float = 0.0) -> Iterable[list[int]]:
    """Split rows into batches of like length, longest first.

    Args:
        lengths: Tokens of each row.
        batch_tokens: Most padded tokens of a batch; a longer row is a batch of its own.
        narrow: Share of its longest row that a batch's rows must have; a shorter row begins another batch,
            unless the batch is still small (padding costs as much compute as text). 0 is no such limit.

    Yields:
        Indices into `lengths`.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        end = start + max(1, batch_tokens // max(1, longest))
        if narrow:
            small = start + max(1, batch_tokens // SMALL_BATCH // max(1, longest))
            while small < min(end, len(order)) and lengths[order[small]] >= narrow * longest:
                small += 1
            end = small
        yield order[start:end]
        start = end


def run_batches(batches: Iterable[list[int]], run: Callable[[list[int]], None]) -> None:
    """Run each batch. Where the device has too little memory for one, it and all that follow with as many
    rows are halved.

    Args:
        batches: Rows of each batch.
        run: Called with a batch; may be called again with its halves after it ran out of memory.

    Raises:
        RuntimeError: There is too little memory for a single row (torch's own error).
    """
    waiting = deque(batches)
    while waiting:
        if _fits(run, waiting[0]):
            waiting.popleft()
        else:
            rows = len(waiting[0])
            waiting = deque(half for batch in waiting for half in _halves(batch, rows))


def _fits(run: Callable[[list[int]], None], batch: list[int]) -> bool:
    """Run a batch; False where the device has too little memory for it."""
    from accelerate.utils.memory import clear_device_cache  # slow to load

    try:
        run(batch)
        return True
    except RuntimeError as error:
        if len(batch) == 1 or not is_memory_error(error):
            raise
    # Outside of the handler: the error's traceback holds the tensors of the failed batch.
    clear_device_cache(garbage_collection=True)
    return False


def _halves(batch: list[int], rows: int) -> list[list[int]]:
    """The halves of a batch of at least `rows` rows; a smaller one as it is."""
    middle = (len(batch) + 1) // 2
    return [batch[:middle], batch[middle:]] if len(batch) >= rows else [batch]


def is_memory_error(error: Exception) -> bool:
    """Whether the device, or the host, had too little memory for a tensor."""
    if not isinstance(error, RuntimeError):
        return False
    from accelerate.utils.memory import should_reduce_batch_size  # slow to load

    return should_reduce_batch_size(error)


@contextlib.contextmanager
def clear_memory_errors(remedy: str, where: str = "with a single row in the batch") -> Iterator[None]:
    """Turn an out-of-memory error in the block into a UserError that says `where` and names the `remedy`."""
    try:
        yield
    except RuntimeError as error:
        if not is_memory_error(error):
            raise
        raise UserError(f"out of memory {where}; {remedy}") from None
