"""Trackers: one W&B run per job, offline unless logged in, closed whether the job succeeds or not."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from findistill.config.compose import plain
from findistill.config.validate import validate
from findistill.core import rules, tracking
from findistill.core.tracking import Attempt, Tracker, track
from findistill.errors import UserError
from tests.core.test_job import composed


def tracker_for(config: Any, folder: Path) -> AbstractContextManager[Tracker]:
    """A tracker for a job with this configuration."""
    return track(plain(config), folder, config.logger, Attempt())


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


def test_what_the_client_calls_disabled_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    config = composed("logger=wandb", "study=moon")
    with tracker_for(config, tmp_path / "job") as tracker:
        tracker.finish_with({"test/accuracy": 0.5})
    tracking.track_report(config, tmp_path)
    assert not (tmp_path / "job").exists() and not (tmp_path / "wandb").exists()


def test_a_job_that_fails_closes_its_run(tmp_path: Path) -> None:
    import wandb

    config = composed("logger=wandb", "logger.wandb.mode=offline", "study=moon")
    for number in range(2):
        with pytest.raises(ValueError, match="broken"), tracker_for(config, tmp_path / f"job{number}") as tracker:
            tracker.finish_with({"test/accuracy": 0.5})
            raise ValueError("broken")
    assert wandb.run is None
    runs = sorted(path.name for path in tmp_path.glob("job*/wandb/offline-run-*"))
    assert len(runs) == 2 and len({name.rsplit("-", 1)[-1] for name in runs}) == 2


def test_without_wandb_nothing_is_imported_or_written(tmp_path: Path) -> None:
    with tracker_for(composed("logger=none"), tmp_path) as tracker:
        assert tracker.lightning_loggers() == []
        tracker.figures([tmp_path / "x.png"])
        tracker.finish_with({})
    assert not list(tmp_path.iterdir())


def test_the_csv_logger_writes_into_the_run_folder(tmp_path: Path) -> None:
    with tracker_for(composed("logger=csv"), tmp_path) as tracker:
        [logger] = tracker.lightning_loggers()
        logger.log_metrics({"train/loss": 0.5}, step=1)
        tracker.finish_with({"test/accuracy": 0.75})
    logged = pd.read_csv(tmp_path / "csv" / "metrics.csv")
    assert logged["train/loss"].tolist()[0] == 0.5 and logged["test/accuracy"].tolist()[-1] == 0.75


def test_several_loggers_at_once(tmp_path: Path) -> None:
    """Event files are read back by TensorBoard itself."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = composed("logger=[wandb,csv,tensorboard]", "logger.wandb.mode=offline", "study=moon")
    assert set(config.logger) == {"wandb", "csv", "tensorboard"}
    with tracker_for(config, tmp_path) as tracker:
        loggers = tracker.lightning_loggers()
        assert [type(logger).__name__ for logger in loggers] == ["GuardedLogger", "CSVLogger", "TensorBoardLogger"]
        assert tracker.lightning_loggers() is loggers
        for step in range(3):
            loggers[2].log_metrics({"train/loss": 1.0 - step / 4}, step=step)
        tracker.finish_with({"test/accuracy": 0.75})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("train/loss")] == [1.0, 0.75, 0.5]
    assert events.Scalars("test/accuracy")[0].value == 0.75
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1 and (tmp_path / "csv" / "metrics.csv").exists()


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_logger_that_is_not_installed_names_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "find_spec", lambda package: None)
    with pytest.raises(UserError) as error:
        validate(composed(f"logger=[wandb,{name}]"))
    assert str(error.value) == f"logger={name} needs the package {name}: pip install 'findistill[{name}]'"
    validate(composed("logger=[wandb,csv]"))
