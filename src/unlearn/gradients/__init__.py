"""Several gradients made into one update."""

from unlearn.gradients.combiners import COMBINERS, Combiner, Sum, diagnosis

__all__ = ["COMBINERS", "Combiner", "Sum", "diagnosis"]
