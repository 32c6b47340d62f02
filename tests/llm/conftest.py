"""A loopback server for the tests of the endpoint engine, and the log."""

import logging
from collections.abc import Iterator

import pytest

from findistill.llm import server as calling
from tests.llm.servers import KEY, LoopbackServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackServer]:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(calling, "FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(calling, "HALVE_EVERY_S", 0.02)
    running = LoopbackServer()
    yield running
    running.stop()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="findistill")
    return caplog
