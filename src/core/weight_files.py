"""Completeness of weight files: a model's weights, no fewer and no others."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from unittest.mock import patch


def weight_faults(loaded: Mapping[str, Any], kind: str) -> list[str]:
    """Faults of weight files, as ends of a message.

    Args:
        loaded: Loading info of transformers. Tied weights, and those that the architecture declares absent,
            are not in it.
        kind: Class of the model, for the message.
    """
    missing, surplus = sorted(loaded["missing_keys"]), sorted(loaded["unexpected_keys"])
    others = [
        f"{name} ({list(found)} in place of {list(wanted)})"
        for name, found, wanted in sorted(loaded["mismatched_keys"])
    ]
    faults = [f"lack {_some(missing)} (random values would take their place)"] if missing else []
    faults += [f"hold other shapes of {_some(others)}"] if others else []
    return faults + ([f"hold {_some(surplus)} (which {kind} does not have)"] if surplus else [])


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more weights" if len(names) > 3 else shown


@contextlib.contextmanager
def loading_reports() -> Iterator[list[dict[str, Collection]]]:
    """Collect the loading info of every model that another library loads in the block. (Transformers passes
    it only to its direct caller and to a log, so its log function is replaced.)"""
    from transformers.utils.loading_report import log_state_dict_report  # slow to load

    reports = []

    def keep(*args, loading_info, **options):
        reports.append(loading_info.to_dict())
        log_state_dict_report(*args, loading_info=loading_info, **options)

    with patch("transformers.modeling_utils.log_state_dict_report", keep):
        yield reports
