"""The `callbacks` group: what it logs, when it stops, and what appears in a terminal or a log file."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from pytorch_lightning.loggers import CSVLogger

from findistill.config.validate import validate
from findistill.errors import UserError
from findistill.methods.finetune.steps import Finetune, TeacherModel
from findistill.methods.qlora.steps import Qlora
from findistill.training.callbacks import GradientNorm, Judged, Progress, early_stopping, make
from findistill.training.loop import Session
from findistill.training.trainer import Trained, fit
from tests.fixtures.composing import composed


@pytest.fixture
def run(encoder, trainer, labels, corpus, tmp_path: Path):
    def run(callbacks: Any, **changed: Any) -> Trained:
        session = Session(trainer, **{"folder": tmp_path / "run", "callbacks": callbacks} | changed)
        return fit(encoder, None, labels, corpus.train, corpus.validation, session)

    return run


def test_rates_and_gradient_norms_are_logged(run, tmp_path: Path) -> None:
    run(composed().callbacks, loggers=[CSVLogger(tmp_path, name="", version="csv")])
    logged = pd.read_csv(tmp_path / "csv" / "metrics.csv")
    rates = next(column for column in logged if column.startswith("lr-"))
    assert logged[rates].dropna().between(0, 5e-3).all() and logged[rates].notna().sum() >= 1
    norms = logged["train/grad_norm"].dropna()
    assert len(norms) >= 1 and (norms > 0).all()


def test_one_line_an_epoch_where_stderr_is_no_terminal(run, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger("findistill"), "propagate", True)
    with caplog.at_level(logging.INFO, "findistill"):
        run(composed().callbacks)
    lines = [record.message for record in caplog.records if record.message.startswith("epoch")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3"]
    assert "train/loss" in lines[0] and "val/macro_f1" in lines[0]


def test_no_callbacks_say_nothing_and_change_no_weight(run, tmp_path: Path, capfd, caplog) -> None:
    with caplog.at_level(logging.INFO, "findistill"):
        run(composed("callbacks=none").callbacks)
    assert not [record for record in caplog.records if record.message.startswith("epoch")]
    run(composed().callbacks, folder=tmp_path / "other")
    one, other = (tmp_path / folder / "model" / "model.safetensors" for folder in ("run", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_early_stopping_follows_the_monitor(run, monkeypatch: pytest.MonkeyPatch) -> None:
    section = composed("callbacks=early_stopping", "callbacks.early_stopping.patience=1").callbacks
    assert set(section) == {"progress", "learning_rate", "gradient_norm", "early_stopping"}
    monkeypatch.setattr("findistill.training.classifier.macro_f1", lambda *_: 0.5)
    assert len(run(section).history) == 2
    assert early_stopping("val/loss").mode == "min" and early_stopping("val/macro_f1").mode == "max"
    loss = composed("callbacks=early_stopping", "trainer.monitor=val/loss").callbacks
    assert loss.early_stopping.monitor == "val/loss"


def test_callbacks_with_nothing_to_do_are_left_out() -> None:
    section = composed("callbacks=early_stopping").callbacks
    assert len(make(section, validates=True, logs=True)) == 4
    assert len(make(section, validates=False, logs=True)) == 3
    assert not any(isinstance(one, GradientNorm) for one in make(section, validates=True, logs=False))


def test_ones_own_callback_from_the_command_line(run) -> None:
    config = composed("+callbacks.timer._target_=pytorch_lightning.callbacks.Timer", "+callbacks.timer.duration='01:00:00:00'")
    validate(config)
    assert [type(one).__name__ for one in make(config.callbacks, validates=True, logs=False)] == ["Progress", "Timer"]
    assert len(run(config.callbacks).history) == 3
    with pytest.raises(UserError, match="not allowed"):
        run({"mine": {"_target_": "os.system", "command": "true"}})


def test_only_the_jobs_own_training_has_them() -> None:
    """The student's callbacks do not change the key of an intermediate teacher."""
    one, other = composed(), composed("callbacks=early_stopping")
    assert TeacherModel(one).key == TeacherModel(other).key
    for stage, step in (("teacher", Finetune), ("qlora", Qlora)):
        keys = {step(composed(f"stage={stage}", f"callbacks={name}")).key for name in ("default", "early_stopping")}
        assert len(keys) == 2


def test_the_bar_is_closed_when_a_training_ends() -> None:
    progress, closed = Progress(), []
    progress.bar = SimpleNamespace(close=lambda: closed.append(True))
    progress.teardown(SimpleNamespace(), SimpleNamespace(), "fit")
    assert closed == [True]
    Judged("val/loss").teardown(SimpleNamespace(), SimpleNamespace(), "fit")  # has no bar
