"""The Hugging Face hub on a machine without network."""

import os
import socket
import sys
import urllib.request
from functools import cache
from urllib.parse import urlsplit

CONNECT_TIMEOUT_S = 5


@cache
def offline_reason() -> str:
    """Why nothing can be fetched from the hub, for messages; empty when it can be reached.

    To be called before something is loaded from the hub. Its client retries for a minute where there is no
    network; in its offline mode, which is switched on here, it looks into its cache at once. The connection
    is tried once per process."""
    import huggingface_hub.constants as hub

    if hub.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if urllib.request.getproxies():  # a direct connection proves nothing
        return ""
    address = urlsplit(hub.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname, port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        hub.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"  # for what is imported later, and for other processes
        if "datasets" in sys.modules:
            sys.modules["datasets"].config.HF_HUB_OFFLINE = True
        return f"{address.hostname} cannot be reached ({error.strerror or error})"
    return ""


def hub_problem(error: Exception) -> str:
    """Why something could not be loaded from the hub, in one line of at most 300 characters or so."""
    reason = " ".join(str(error).split())
    if offline := offline_reason():
        return f"{offline}, and the hub's cache does not have it: {reason.partition('. ')[0][:200]}"
    return reason[:300]
