"""Forget and retain objectives and regularizers. Importing this package registers each of them."""

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
    retain,
    simnpo,
    undial,
    weighted,
)
