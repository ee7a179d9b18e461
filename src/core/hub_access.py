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

    Call it before loading something from the hub: it switches the hub's client to offline mode where there is
    no network, since the client would otherwise retry for a minute before it uses its cache. The connection
    is tried once per process.
    """
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
    """Why something could not be loaded from the hub: one line of about 300 characters at most."""
    reason = " ".join(str(error).split())
    if offline := offline_reason():
        return f"{offline}, and the hub's cache does not have it: {reason.partition('. ')[0][:200]}"
    return reason[:300]
