"""Batches within a budget, halved where memory is short."""

import pytest
import torch

from unlearnkit.core.batching import clear_memory_errors, run_batches
from unlearnkit.core.files import UserError


def device_of(rows: int, done: list):
    """A device that holds batches of at most `rows` rows."""

    def run(batch: list[int]) -> None:
        if len(batch) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        done.append(batch)

    return run


def test_a_batch_that_is_too_large_and_those_like_it_are_halved():
    done: list[list[int]] = []
    run_batches([[0, 1, 2, 3, 4], [5, 6, 7, 8], [9]], device_of(2, done))
    assert [row for batch in done for row in batch] == list(range(10))
    assert done == [[0, 1], [2], [3, 4], [5, 6], [7, 8], [9]]


def test_a_single_row_that_does_not_fit_is_an_error_that_names_the_remedy():
    expected = pytest.raises(UserError, match="single row in the batch; lower that key")
    with expected, clear_memory_errors("lower that key"):
        run_batches([[0, 1]], device_of(0, []))


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def broken(batch: list[int]) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"), clear_memory_errors("lower that key"):
        run_batches([[0, 1]], broken)
