"""Weight masks: which coordinates unlearning may change (WAGLE, arXiv:2410.17509). True is updated; ratio is
the share of True."""

from .application import WeightMask
from .mask_file import Sidecar, read_mask, write_mask
from .scores import SCORES
from .selection import select

__all__ = ["SCORES", "Sidecar", "WeightMask", "read_mask", "select", "write_mask"]
