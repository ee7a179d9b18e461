"""Do the files of a model hold its weights, no fewer and no others?"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from unittest.mock import patch


def weight_faults(loaded: Mapping[str, Any], kind: str) -> list[str]:
    """What is wrong with weight files, from transformers' loading info about a model of the class `kind`.
    Tied weights, and those that the architecture declares absent, are not a fault."""
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
    """The loading info of every model that another library loads in the block, which transformers gives to
    nobody but its caller and a log."""
    from transformers.utils.loading_report import log_state_dict_report  # slow to load

    reports = []

    def keep(*args, loading_info, **options):
        reports.append(loading_info.to_dict())
        log_state_dict_report(*args, loading_info=loading_info, **options)

    with patch("transformers.modeling_utils.log_state_dict_report", keep):
        yield reports
