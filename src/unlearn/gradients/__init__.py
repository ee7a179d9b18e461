"""Several gradients made into one update."""

from .combiners import COMBINERS, Combiner, Sum, diagnosis

__all__ = ["COMBINERS", "Combiner", "Sum", "diagnosis"]
