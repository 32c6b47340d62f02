"""What is passed to Lightning's Trainer, and what keeps a training on its one device."""

import inspect
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from omegaconf import OmegaConf, open_dict
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from findistill.config.fields import result_settings
from findistill.config.groups import options
from findistill.config.validate import validate
from findistill.errors import UserError
from findistill.methods.distil.steps import Distil
from findistill.methods.finetune.steps import TeacherModel
from findistill.training import loop
from findistill.training.config import Trainer, lightning_arguments, lightning_extras
from findistill.training.loop import Session
from findistill.training.trainer import Trained, fit
from tests.conftest import Command
from tests.fixtures.composing import composed
from tests.fixtures.jobs import run_job


def with_extras(trainer: Trainer, **extras: Any) -> Any:
    section = OmegaConf.structured(trainer)
    with open_dict(section):
        section.update(extras)
    return section


@pytest.fixture
def fitted(encoder, trainer, labels, corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`fit` with additional keys in `trainer`; returns its result and the Lightning trainer."""
    trainers = []
    original = loop._lightning
    monkeypatch.setattr(loop, "_lightning", lambda *a, **k: (trainers.append(original(*a, **k)), trainers[-1])[1])

    def run(changed: Trainer = trainer, **extras: Any) -> tuple[Trained, Any]:
        section = with_extras(changed, **extras)
        trained = fit(encoder, None, labels, corpus.train, corpus.validation, Session(section, tmp_path / "run"))
        return trained, trainers[-1]

    return run


@pytest.mark.parametrize(
    ("extras", "steps", "epochs"),
    [
        ({"limit_train_batches": 2}, 6, 3),
        ({"max_steps": 3}, 3, 1),
        ({"max_steps": 8}, 8, 2),
        ({"fast_dev_run": True}, 1, 1),
        ({"num_sanity_val_steps": 2}, 18, 3),
        ({"profiler": "simple"}, 18, 3),
        ({"overfit_batches": 2}, 6, 3),
    ],
    ids=str,
)
def test_further_keys_reach_lightning_as_they_are(fitted, extras: dict[str, Any], steps: int, epochs: int) -> None:
    """48 rows in batches of 8 for 3 epochs are 18 steps."""
    trained, lightning = fitted(**extras)
    assert lightning.global_step == steps and len(trained.history) == epochs
    assert trained.model_dir.is_dir() and 1 <= trained.best_epoch <= epochs


def test_an_epoch_cut_short_is_not_the_best(fitted) -> None:
    trained, _ = fitted(max_steps=8)
    assert "val/macro_f1" not in trained.history[1] and trained.best_epoch == 1


def test_lightnings_own_names(fitted, trainer: Trainer) -> None:
    _, lightning = fitted(replace(trainer, gradient_clip_val=0.5, accumulate_grad_batches=2))
    assert (lightning.gradient_clip_val, lightning.accumulate_grad_batches) == (0.5, 2)
    assert lightning.num_devices == 1  # devices=auto


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+trainer.limit_train_batch=2", r"^trainer\.limit_train_batch: .*did you mean trainer\.limit_train_batches\?$"),
        ("trainer.max_epoch=2", r"^trainer\.max_epoch: .*did you mean trainer\.max_epochs\?$"),
        ("+trainer.gradient_clip=1", r"did you mean trainer\.gradient_clip_val\?$"),
        ("+trainer.callbacks=[]", r"^trainer\.callbacks is not set here: choose callbacks=NAME"),
    ],
)
def test_an_unknown_key_is_one_line_with_the_nearest(override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        validate(composed(override))


def test_a_key_of_lightnings_is_accepted_and_part_of_every_trainings_key() -> None:
    config = composed("+trainer.limit_train_batches=2", "distill=logit")
    validate(config)
    assert lightning_extras(config.trainer) == {"limit_train_batches": 2}
    assert result_settings(config.trainer)["limit_train_batches"] == 2
    other = composed("distill=logit")
    for step in (TeacherModel, Distil):
        assert step(config).key != step(other).key
    assert TeacherModel(config).config.trainer.limit_train_batches == 2


def test_the_arguments_are_those_of_lightnings_trainer() -> None:
    assert set(lightning_arguments()) == set(inspect.signature(pl.Trainer).parameters)


def test_a_value_that_lightning_refuses_is_named(fitted) -> None:
    with pytest.raises(UserError, match=r"trainer\.limit_train_batches=-3"):
        fitted(limit_train_batches=-3)


@pytest.mark.parametrize("name", sorted(options()["debug"]))
def test_every_debug_option_trains(name: str, fitted, trainer: Trainer) -> None:
    config = composed(f"debug={name}")
    validate(config)
    assert not config.logger
    changed = {key: config.trainer[key] for key in ("max_epochs", "schedule", "warmup")}
    trained, _ = fitted(replace(trainer, **changed), **lightning_extras(config.trainer))
    if name == "overfit":
        assert trained.history[-1]["train/loss"] < 0.2 < trained.history[0]["train/loss"], "two batches are learnt by heart"


def test_a_profiler_reports(fitted, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("findistill"), "propagate", True)
    with caplog.at_level(logging.INFO, "findistill"):
        fitted(profiler="simple")
    assert "run_training_epoch" in caplog.text


def whole_job(tiny: Path, *overrides: str) -> Any:
    return composed(
        "stage=teacher", "data=demo", "teacher=folder", f"teacher.model={tiny}", "teacher.name=tiny", "trainer.accelerator=cpu",
        "trainer.precision=32", "trainer.max_length=32", "callbacks=none", *overrides,
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(options()["debug"]))
def test_every_debug_option_runs_a_whole_job(name: str, tiny: Path, tmp_path: Path) -> None:
    config = whole_job(tiny, f"debug={name}", *(["trainer.max_epochs=2"] if name == "overfit" else []))
    validate(config)
    job = run_job(config, tmp_path)
    assert 0 <= job.metrics["test/accuracy"] <= 1 and (job.folder / "model" / "model.safetensors").exists()


def test_a_command_with_lightnings_own_keys_and_tensorboard(findistill: Command, tiny: Path, tmp_path: Path) -> None:
    """The event file has losses, validation scores, the learning rate and the gradient norm at each step."""
    result = findistill(
        "stage=teacher", "study=moon", "data=demo", f"teacher={tiny}", "trainer=cpu", "trainer.max_length=32",
        "trainer.max_epochs=3", "+trainer.limit_train_batches=2", "+trainer.profiler=simple", "+trainer.log_every_n_steps=1",
        "logger=tensorboard",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "run_training_epoch" in result.stderr
    [folder] = (tmp_path / "runs" / "moon").glob("teacher-*/tensorboard")
    events = EventAccumulator(str(folder)).Reload()
    rates = next(tag for tag in events.Tags()["scalars"] if tag.startswith("lr-"))
    assert len(events.Scalars(rates)) == 6 == len(events.Scalars("train/grad_norm")) == len(events.Scalars("train/loss"))
    assert all(event.value > 0 for event in events.Scalars("train/grad_norm"))
    assert [event.step for event in events.Scalars("val/loss")] == [1, 3, 5]
    assert len(events.Scalars("test/accuracy")) == 1
