"""W&B unreachable, unresponsive, or killed: one line, and the job succeeds."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import wandb

from findistill.core import wandb_run
from findistill.core.closing import sync_line
from tests.core.test_job import composed
from tests.core.test_tracking import tracker_for
from tests.fixtures.wandb_server import serving


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Logged in, to a port where nothing listens."""
    wandb.teardown()  # it caches the server of earlier tests
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_run, "_unreachable", False)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def use(folder: Path) -> None:
    with tracker_for(composed("logger=wandb", "study=moon"), folder) as tracker:
        [logger] = tracker.lightning_loggers()
        logger.log_metrics({"train/loss": 0.5}, step=1)
        frame = pd.DataFrame(
            {"text": ["a", "b"], "label": ["x", "y"], "predicted": ["x", "x"], "p_x": [0.9, 0.8], "p_y": [0.1, 0.2]}
        )
        tracker.predictions(frame, ["x", "y"], {})
        tracker.finish_with({"test/accuracy": 0.5})


def test_a_server_out_of_reach_is_waited_for_once(
    online: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "findistill")
    started = time.monotonic()
    for number in range(2):
        use(tmp_path / f"job{number}")
    assert time.monotonic() - started < 20
    assert caplog.text.count("W&B at 127.0.0.1 cannot be reached (no connection): runs are written offline") == 1
    assert len(sorted(tmp_path.glob("job*/wandb/offline-run-*"))) == 2
    assert sync_line(tmp_path) == f"unsynced W&B runs: wandb sync {tmp_path}/job0/wandb {tmp_path}/job1/wandb"
    assert os.environ["WANDB_MODE"] == "offline"  # child processes do not wait again


def test_a_server_that_does_not_answer(
    online: pytest.MonkeyPatch, silent_server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    online.setenv("WANDB_BASE_URL", silent_server)
    online.setattr(wandb_run, "PATIENCE_S", 2.0)
    use(tmp_path / "job")
    assert "runs are written offline" in caplog.text and list(tmp_path.glob("job/wandb/offline-run-*"))


def test_a_killed_process_of_wandbs_ends_no_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb_run, "PATIENCE_S", 5.0)
    before = services()
    with tracker_for(composed("logger=wandb", "study=moon"), tmp_path / "killed") as tracker:
        [service, *_] = services() - before or services()
        os.kill(service, signal.SIGKILL)
        time.sleep(0.3)
        for step in range(3):
            tracker.lightning_loggers()[0].log_metrics({"train/loss": 0.5}, step=step)
        tracker.finish_with({"test/accuracy": 0.5})
    assert len([line for line in caplog.messages if line.startswith("W&B")]) == 1, caplog.messages


def test_the_end_of_wandbs_process_is_not_the_end_of_the_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The client exits with the killed process's code unless it has already noticed its end: about every second time."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    for number in range(6):
        run = wandb_run.start(tmp_path, composed("logger=wandb").logger.wandb, "offline", name=f"run{number}")
        wandb_run._end_service(run)
        assert not services()


def test_what_asks_a_silent_server_for_news_ends_before_the_process_it_asks(online: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The client's polling thread would print a traceback at its next request, some seconds later."""
    with serving() as server:
        online.setenv("WANDB_BASE_URL", server.url)
        run = wandb_run.start(tmp_path, composed("logger=wandb").logger.wandb, "online", name="run")
        asking = [thread for thread in threading.enumerate() if thread.name == "NetStatThr"]
        server.silent.set()
        online.setattr(wandb_run, "PATIENCE_S", 2.0)
        connection = wandb_run.Connection(run)
        connection.attempt(lambda: time.sleep(4))  # a call that does not return in time: no more are made
        connection.finish(0)
        assert not services() and asking and not any(thread.is_alive() for thread in asking)


def services() -> set[int]:
    """W&B's running processes that this process started."""
    pids = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = path.read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue
        if name.startswith("wandb-core") and int(rest.split()[1]) == os.getpid() and rest.split()[0] != "Z":
            pids.add(int(path.parent.name))
    return pids


def test_the_next_job_of_a_sweep_gets_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb_run, "PATIENCE_S", 5.0)
    use(tmp_path / "first")
    for service in services():
        os.kill(service, signal.SIGKILL)
    use(tmp_path / "second")
    assert list(tmp_path.glob("second/wandb/offline-run-*/*.wandb"))
