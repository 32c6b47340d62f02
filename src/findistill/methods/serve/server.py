"""uvicorn with what it lacks for untrusted clients: a time limit for the head of a request."""

import asyncio
import signal
import socket
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from findistill.methods.serve.config import Serve

GRACE_S = 5  # that running requests have when the server is stopped
KEEP_ALIVE_S = 30  # that a connection may be idle between requests


def serve(app: Any, listening: socket.socket, limits: Serve) -> None:
    """Answer requests until SIGINT or SIGTERM; running ones are finished."""

    class Protocol(_Protocol):
        timeout_s = limits.timeout_s

    config = uvicorn.Config(
        app, http=Protocol, ws="none", log_config=None, log_level="error", access_log=False, server_header=False,
        limit_concurrency=limits.connections, timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=GRACE_S,
    )  # fmt: skip
    _Server(config).run([listening])


class _Server(uvicorn.Server):
    should_exit: bool

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; uvicorn's own handler would re-raise the signal afterwards, despite a clean shutdown."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


class _Protocol(H11Protocol):
    """Closes a connection whose client takes longer than `timeout_s` to send the head of a request."""

    timeout_s: float
    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.timer = self.loop.call_later(self.timeout_s, transport.close)

    def data_received(self, data: bytes) -> None:
        if self.timer is None and not self._answering():
            self.timer = self.loop.call_later(self.timeout_s, self.transport.close)
        super().data_received(data)
        if self.timer and self._answering():
            self.timer.cancel()
            self.timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer:
            self.timer.cancel()
        super().connection_lost(exc)

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete
