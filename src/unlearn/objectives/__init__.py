"""Forget and retain objectives and regularizers. Importing this package registers each of them."""

from . import retain  # noqa: F401  (first: lists of retain objectives begin with FT)

# isort: split
from . import (  # noqa: F401  (one line per file of objectives)
    ceu,
    dpo,
    flat,
    ga,
    gao,
    jensun,
    kl,
    max_entropy,
    npo,
    origin,
    pdu,
    random_label,
    reflection,
    refusal,
    regularizers,
    representation,
    simnpo,
    undial,
    weighted,
)
