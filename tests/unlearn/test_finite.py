"""The check for weights and gradients that are not finite."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from unlearnkit.unlearn.step.gradient_sync import is_finite


class LargestResult(TorchDispatchMode):
    """The most elements of a tensor that an operation returned."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple) else (found,):
            if isinstance(one, torch.Tensor) and "detach" not in str(function):
                self.elements = max(self.elements, one.numel())
        return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_one_wrong_number_is_found(dtype, wrong):
    tensor = torch.linspace(-2, 2, 4097).to(dtype)
    assert is_finite([tensor])
    tensor[2048] = wrong
    assert not is_finite([torch.zeros(3), tensor])


def test_parts_without_elements_and_other_types_are_finite():
    assert is_finite([torch.empty(0, 4), torch.arange(5, dtype=torch.uint8), torch.tensor(1.0)])


def test_no_copy_of_a_weight_is_made():
    weight = torch.nn.Parameter(torch.randn(1000))
    with LargestResult() as largest:
        assert is_finite([weight])
    assert 0 < largest.elements <= 2
