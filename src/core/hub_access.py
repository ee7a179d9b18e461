"""The Hugging Face hub, and other places of the network, on a machine without network."""

import os
import socket
import sys
import threading
import urllib.request
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

CONNECT_TIMEOUT_S = 2
"""Seconds for the look-up of a name and the connection together."""


OFFLINE_IS_SET = "HF_HUB_OFFLINE is set"


@cache
def offline_reason() -> str:
    """Why nothing can be fetched from the hub, for messages; empty when it can be reached.

    Call it before loading something from the hub: it switches the hub's client to offline mode where there is
    no network, since the client would otherwise retry for a minute before it uses its cache. The connection
    is tried once per process.
    """
    import huggingface_hub.constants as hub

    if hub.HF_HUB_OFFLINE:
        return OFFLINE_IS_SET
    reason = connection_problem(hub.ENDPOINT)
    if reason:
        hub.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"  # for what is imported later, and for other processes
        if "datasets" in sys.modules:
            sys.modules["datasets"].config.HF_HUB_OFFLINE = True
    return reason


def user_is_offline() -> str:
    """As `offline_reason`, for places other than the hub: that the user wants no network."""
    import huggingface_hub.constants as hub

    # A hub that cannot be reached has the same switch, and says nothing about other places.
    switched = offline_reason.cache_info().currsize and offline_reason() != OFFLINE_IS_SET
    return OFFLINE_IS_SET if hub.HF_HUB_OFFLINE and not switched else ""


@cache
def connection_problem(address: str) -> str:
    """Why the host of an address cannot be reached, within CONNECT_TIMEOUT_S; empty where it can."""
    if urllib.request.getproxies():  # a direct connection proves nothing
        return ""
    place = urlsplit(address)
    port = place.port or (80 if place.scheme == "http" else 443)
    found: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection((place.hostname, port), CONNECT_TIMEOUT_S).close()
            found.append("")
        except OSError as error:
            found.append(str(error.strerror or error))

    # The look-up of a name has no time limit of its own, and each address of a host takes a whole one.
    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(CONNECT_TIMEOUT_S)
    problem = found[0] if found else f"no answer in {CONNECT_TIMEOUT_S} s"
    return problem and f"{place.hostname} cannot be reached ({problem})"


def absent_offline(name: str, kind: Literal["model", "dataset"]) -> str:
    """Why a repository of the hub cannot be loaded, where that is plain without its client: the hub cannot be
    reached, and its cache has nothing of the repository. Empty otherwise."""
    reason = offline_reason()
    return f"{reason}, and the hub's cache does not have it" if reason and not _cached(name, kind) else ""


def _cached(name: str, kind: str) -> bool:
    """Whether the hub's cache may have something of a repository."""
    import huggingface_hub.constants as hub

    if (Path(hub.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}").is_dir():
        return True
    # The package datasets keeps prepared tables under names that it spells in its own way.
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or Path(hub.HF_HOME) / "datasets")
    return kind == "dataset" and any(prepared.glob(f"{name.partition('/')[0]}___*"))


def hub_problem(error: Exception) -> str:
    """Why something could not be loaded from the hub: one line of about 300 characters at most."""
    reason = " ".join(str(error).split())
    if offline := offline_reason():
        return f"{offline}, and the hub's cache does not have it: {reason.partition('. ')[0][:200]}"
    return reason[:300]
