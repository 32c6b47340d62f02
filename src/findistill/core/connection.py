"""Quick checks whether a server can be reached, before its client retries for a minute; offline mode of the Hugging Face hub."""

import logging
import os
import socket
import time
from contextlib import suppress
from functools import lru_cache
from urllib.parse import urlsplit

from huggingface_hub import constants

log = logging.getLogger(__name__)

CONNECT_S = 5.0
AGAIN_S = 60.0  # between two checks of the hub
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
OFFLINE = constants.HF_HUB_OFFLINE  # as set in the environment


def reachable(address: str) -> bool:
    """Whether the server accepts a connection; assumed behind a proxy."""
    if any(os.environ.get(name) for name in PROXIES):
        return True
    server = urlsplit(address)
    with suppress(OSError, ValueError):
        port = server.port or (80 if server.scheme == "http" else 443)
        socket.create_connection((server.hostname or "", port), timeout=CONNECT_S).close()
        return True
    return False


def hub_offline() -> bool:
    """Restrict the hub's clients to cached downloads while the hub cannot be reached, as `HF_HUB_OFFLINE=1` does.

    Otherwise each file would cost 23 seconds of retries.
    """
    constants.HF_HUB_OFFLINE = OFFLINE or not _hub_reachable(constants.ENDPOINT, int(time.monotonic() / AGAIN_S))
    return constants.HF_HUB_OFFLINE


@lru_cache(maxsize=1)
def _hub_reachable(address: str, period: int) -> bool:
    answers = reachable(address)
    if not answers:
        log.warning("cannot reach %s: only files that are already downloaded can be used", urlsplit(address).hostname)
    return answers
