"""Sampled decoding in which every text has random numbers of its own.

Torch's generator gives its numbers to the rows of a batch in turn, so that a text depends on those beside
it. Here token t of a text is drawn with number t of the text's own seed: the same seeds give the same texts
in any batch and order, up to the rounding of the logits.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .files import UserError


def uniform_numbers(seed: int, count: int) -> np.ndarray:
    """The first `count` random numbers of a text, [count], uniform on [0, 1)."""
    return np.random.default_rng(seed).random(count)


def draw_tokens(scores: Tensor, numbers: Sequence[float]) -> Tensor:
    """Draw a token for each row by inverting its distribution function.

    Args:
        scores: Logits, after temperature and truncation, [B, V].
        numbers: A uniform random number for each row, [B].

    Returns:
        Token ids, [B].

    Raises:
        UserError: The logits of a row are no distribution.
    """
    # In the order of the vocabulary, not of probability: tokens of nearly equal probability would change
    # places with the rounding of another batch.
    mass = scores.double().softmax(-1).cumsum(-1)
    if not bool(mass[:, -1].isfinite().all()):
        raise UserError("the model's logits are not finite numbers, so no answer can be sampled")
    # The number of a row times its whole mass: the sum of the probabilities is 1 up to rounding only.
    wanted = torch.as_tensor(numbers, dtype=torch.float64, device=mass.device)[:, None] * mass[:, -1:]
    found = torch.searchsorted(mass, wanted, right=True)[:, 0]
    return found.clamp(max=scores.shape[-1] - 1)
