"""Weight masks: which coordinates unlearning may change (WAGLE, arXiv:2410.17509). True is updated; ratio is
the share of True."""

from unlearn.mask.application import WeightMask
from unlearn.mask.file import Sidecar, read_mask, write_mask
from unlearn.mask.scores import SCORES
from unlearn.mask.selection import select

__all__ = ["SCORES", "Sidecar", "WeightMask", "read_mask", "select", "write_mask"]
