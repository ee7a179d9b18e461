import numpy as np
import pytest
import torch

from unlearnkit.core.files import UserError
from unlearnkit.core.seeded_sampling import draw_tokens, uniform_numbers

P = torch.tensor([0.5, 0.0, 0.2, 0.3])


def test_tokens_are_drawn_with_their_probabilities():
    numbers = uniform_numbers(3, 20000)
    drawn = draw_tokens(P.log().expand(20000, 4), numbers)
    shares = np.bincount(drawn.numpy(), minlength=4) / 20000
    assert shares[1] == 0, "a token that was cut off is never drawn"
    assert shares == pytest.approx(P.numpy(), abs=0.02)  # 5 standard errors of a share of .5


def test_a_number_chooses_the_token_in_whose_stretch_it_lies():
    scores = P.log().expand(5, 4)
    assert draw_tokens(scores, [0.0, 0.49, 0.51, 0.71, 1 - 2**-53]).tolist() == [0, 0, 2, 3, 3]


def test_tokens_of_nearly_equal_probability_do_not_change_places_with_rounding():
    near = torch.tensor([[1.0, 1.0 + 1e-6, 0.0], [1.0 + 1e-6, 1.0, 0.0]])
    for number in (0.1, 0.3, 0.6, 0.8):
        assert len(set(draw_tokens(near, [number, number]).tolist())) == 1


def test_logits_that_are_no_numbers_are_refused():
    with pytest.raises(UserError, match="not finite"):
        draw_tokens(torch.tensor([[0.0, 1.0], [0.0, float("nan")]]), [0.5, 0.5])


def test_a_seed_gives_the_same_numbers_however_many_are_taken():
    assert (uniform_numbers(7, 5) == uniform_numbers(7, 50)[:5]).all()
    assert (uniform_numbers(7, 5) != uniform_numbers(8, 5)).all()
