"""Whether servers can be reached, before a client of theirs tries for a minute; and the Hugging Face hub without a connection."""

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
AGAIN_S = 60.0  # after which the hub is tried again
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
OFFLINE = constants.HF_HUB_OFFLINE  # as the environment has it


def reachable(address: str) -> bool:
    """Whether the server takes a connection; behind a proxy that is the proxy's to say."""
    if any(os.environ.get(name) for name in PROXIES):
        return True
    server = urlsplit(address)
    with suppress(OSError, ValueError):
        port = server.port or (80 if server.scheme == "http" else 443)
        socket.create_connection((server.hostname or "", port), timeout=CONNECT_S).close()
        return True
    return False


def hub_offline() -> bool:
    """Have the hub's clients read what was downloaded before, and nothing else, as long as the hub cannot be reached.

    Each file would take them 23 seconds of retries otherwise. It is what `HF_HUB_OFFLINE=1` does.
    """
    constants.HF_HUB_OFFLINE = OFFLINE or not _hub_reachable(constants.ENDPOINT, int(time.monotonic() / AGAIN_S))
    return constants.HF_HUB_OFFLINE


@lru_cache(maxsize=1)
def _hub_reachable(address: str, period: int) -> bool:
    answers = reachable(address)
    if not answers:
        log.warning("%s cannot be reached: only what was downloaded before is there", urlsplit(address).hostname)
    return answers
