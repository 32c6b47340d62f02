"""Trackers: one W&B run a job, offline unless logged in, closed whether the job ends well or not."""

from pathlib import Path

import pytest

from findistill.runs import tracking
from findistill.runs.tracking import track
from tests.runs.test_job import composed


def test_offline_unless_told_or_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert not tracking._online("auto")
    assert tracking._online("online") and not tracking._online("offline")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert tracking._online("auto")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not tracking._online("auto")


def test_a_job_that_fails_closes_its_run(tmp_path: Path) -> None:
    import wandb

    config = composed("logger=wandb", "study=moon")
    for number in range(2):
        with pytest.raises(ValueError, match="broken"), track(config, tmp_path / f"job{number}") as tracker:
            tracker.finish_with({"test/accuracy": 0.5})
            raise ValueError("broken")
    assert wandb.run is None
    runs = sorted(path.name for path in tmp_path.glob("job*/wandb/offline-run-*"))
    assert len(runs) == 2 and len({name.rsplit("-", 1)[-1] for name in runs}) == 2


def test_without_wandb_nothing_is_imported_or_written(tmp_path: Path) -> None:
    with track(composed("logger=none"), tmp_path) as tracker:
        assert tracker.lightning_loggers() == []
        tracker.figures([tmp_path / "x.png"])
        tracker.finish_with({})
    assert not list(tmp_path.iterdir())


def test_the_csv_logger_writes_into_the_run_folder(tmp_path: Path) -> None:
    with track(composed("logger=csv"), tmp_path) as tracker:
        [logger] = tracker.lightning_loggers()
        logger.log_metrics({"train/loss": 0.5}, step=1)
        logger.save()
    assert "train/loss" in (tmp_path / "csv" / "metrics.csv").read_text()
