"""W&B at an address that does not respond: a sweep of four jobs succeeds, and takes little longer than offline."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.conftest import Command
from tests.faults.conftest import CSV, OWN, states
from tests.fixtures.wandb_server import serving

LATER_S = 40.0  # on a busy machine; half of that on an idle one


@contextmanager
def nobody() -> Iterator[str]:
    yield "http://127.0.0.1:9"


@contextmanager
def silent() -> Iterator[str]:
    """A server that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class Unavailable(BaseHTTPRequestHandler):
    def answer(self) -> None:
        self.send_error(503)

    do_GET = do_POST = do_PUT = answer  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep stderr clean."""


@contextmanager
def failing() -> Iterator[str]:
    """A server that answers every request with a retryable error."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Unavailable) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


ADDRESSES = {"nobody listens": nobody, "no answer": silent, "errors": failing}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_dead_server_costs_a_sweep_less_than_forty_seconds(findistill: Command, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(CSV)
    command = (
        "-m", "stage=teacher", f"teacher={tiny}", *OWN, "study=moon", "seed=0,1,2,3", "evaluate.latency=false",
        "evaluate.resamples=20", "trainer.max_epochs=1", "sweep.report=false",
    )  # fmt: skip
    environment = {name: "" for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")}

    def seconds(runs: str, **more: str) -> tuple[float, str]:
        started = time.monotonic()
        result = findistill(*command, f"runs_dir={runs}", **environment, **more)
        assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr[-3000:]
        assert list(states(tmp_path / runs).values()) == ["done"] * 4
        return time.monotonic() - started, result.stderr

    offline = min(seconds(f"offline{number}", WANDB_MODE="offline")[0] for number in range(2))
    for number, (name, address) in enumerate(ADDRESSES.items()):
        with address() as url:
            key = "0" * 40
            took, errors = seconds(f"online{number}", WANDB_MODE="online", WANDB_API_KEY=key, WANDB_BASE_URL=url)
        print(f"{name}: {took:.1f} s, offline {offline:.1f} s")
        assert errors.count("W&B at 127.0.0.1 cannot be reached") == 1, errors
        assert len([*tmp_path.glob(f"online{number}/moon/teacher-*/wandb/offline-run-*")]) >= 4
        assert took < offline + LATER_S, name


@pytest.mark.slow
def test_a_server_that_stops_answering_half_way(findistill: Command, tiny: Path, tmp_path: Path) -> None:
    """The first job's run is open when the server stops responding: one line, both jobs done, and the process exits."""
    (tmp_path / "mine.csv").write_text(CSV)
    environment = {name: "" for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")}
    with serving() as server:

        def fall_silent() -> None:
            while not any(server.runs.values()):
                time.sleep(0.02)
            server.silent.set()

        Thread(target=fall_silent, daemon=True).start()
        started = time.monotonic()
        result = findistill(
            "-m", "stage=teacher", f"teacher={tiny}", *OWN, "study=moon", "seed=0,1", "evaluate.latency=false",
            "evaluate.resamples=20", "trainer.max_epochs=1", "sweep.report=false", timeout=150, **environment,
            WANDB_MODE="online", WANDB_API_KEY="0" * 40, WANDB_BASE_URL=server.url,
        )  # fmt: skip
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr[-3000:]
    assert list(states(tmp_path / "runs").values()) == ["done"] * 2
    assert result.stderr.count("W&B at 127.0.0.1 cannot be reached (no response within 15 s)") == 1, result.stderr
    assert "unsynced W&B runs: wandb sync --include-online runs/moon/" in result.stderr
    assert time.monotonic() - started < 120
