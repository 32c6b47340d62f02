"""Progress in the log: a line now and then with the rate and the remaining time."""

import logging
import re
import time
from pathlib import Path

import pytest

from findistill.core import progress
from findistill.core.progress import ProgressMeter


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(progress, "INTERVAL_S", 0.05)
    caplog.set_level(logging.INFO, "findistill")
    return caplog


def test_without_a_terminal_there_is_a_line_an_interval_with_rate_and_time_left(lines: pytest.LogCaptureFixture) -> None:
    started = time.perf_counter()
    for _ in ProgressMeter(range(40), desc="annotate", unit="response"):
        time.sleep(0.005)
    intervals = (time.perf_counter() - started) / progress.INTERVAL_S  # about 4, more on a busy machine
    assert 2 <= len(lines.messages) <= intervals
    pattern = r"annotate: \d+ of 40 responses \(\d+%\), [\d.]+ responses/s, about [\d.]+ s left"
    assert all(re.fullmatch(pattern, line) for line in lines.messages), lines.messages


def test_short_work_shows_none(lines: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in ProgressMeter(range(10), desc="embed"):
        pass
    assert not lines.messages and not capfd.readouterr().err


def test_the_newest_line_lies_in_the_folder_of_the_job_while_it_runs(
    lines: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "NOTED_S", 0.0)
    with progress.noted_in(tmp_path), ProgressMeter(total=100, desc="annotate", unit="response") as meter:
        assert not list(tmp_path.iterdir())
        time.sleep(0.06)
        meter.update(30)
        assert (tmp_path / "progress.txt").read_text().startswith("annotate: 30 of 100 responses (30%), ")
    assert not list(tmp_path.iterdir())


def test_the_rate_of_resumed_work_counts_what_this_run_did(lines: pytest.LogCaptureFixture) -> None:
    with ProgressMeter(total=1000, initial=900, desc="training", unit="batch") as meter:
        time.sleep(0.06)
        meter.update(10)
    [line] = lines.messages
    match = re.search(r"910 of 1,000 batches \(91%\), ([\d.]+) batches/s", line)
    assert match and float(match[1]) < 200, line
