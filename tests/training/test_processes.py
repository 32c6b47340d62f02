"""Training on several devices: two CPU processes learn the same as one."""

import json
import logging
import multiprocessing
import os
import pickle
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.strategies import FSDPStrategy
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

from findistill.config.validate import validate
from findistill.core.store import Store
from findistill.errors import UserError
from findistill.models.config import Pretrain
from findistill.training.classifier import EncoderClassifier
from findistill.training.config import Intermediate, TeacherDistill, Trainer
from findistill.training.distillation import distil
from findistill.training.loop import Session, strategy_of
from findistill.training.objectives import CrossEntropy
from findistill.training.pretraining import pretrain
from findistill.training.processes import count_of, packed
from findistill.training.recipe import Recipe
from findistill.training.trainer import Trained, fit
from tests.conftest import Command
from tests.fixtures.composing import composed

TWO = {"devices": 2, "strategy": "ddp"}
RECIPE = Recipe(1, 8, learning_rate=1e-3, max_length=16, weight_decay=0.01, warmup=0.1, monitor="val/loss", precision="32-true")


@pytest.fixture
def undropped(tiny: Path, tmp_path: Path) -> Path:
    """The tiny BERT without dropout, so that one process and two differ only in the order of summation."""
    folder = tmp_path / "undropped"
    config = BertConfig.from_pretrained(tiny, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    BertModel.from_pretrained(tiny, config=config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


@pytest.fixture
def run(encoder, trainer, labels, corpus, tmp_path: Path):
    def run(name: str, model: Path | None = None, callbacks=None, loggers=(), **settings) -> Trained:
        return fit(
            replace(encoder, model=str(model or encoder.model)), None, labels, corpus.train, corpus.validation,
            Session(replace(trainer, **settings), tmp_path / name, loggers=loggers, callbacks=callbacks),
        )  # fmt: skip

    return run


@pytest.mark.slow
def test_two_processes_learn_what_one_does(run, undropped: Path, tmp_path: Path, caplog, monkeypatch) -> None:
    """They take as many steps on the same batches; what they log arrives once, in the loggers of the main process."""
    monkeypatch.setattr(logging.getLogger("findistill"), "propagate", True)
    callbacks = composed("callbacks=default").callbacks
    logs = {name: CSVLogger(tmp_path / "logs", name=name, version="") for name in ("one", "two")}
    one = run("one", undropped, callbacks, [logs["one"]])
    caplog.clear()
    with caplog.at_level(logging.INFO, "findistill"):
        two = run("two", undropped, callbacks, [logs["two"]], **TWO)
    for row, other in zip(one.history, two.history, strict=True):
        for name in ("train/loss", "val/loss", "val/accuracy", "val/macro_f1", "lr"):
            assert other[name] == pytest.approx(row[name], abs=2e-3), name
    assert two.best_epoch == one.best_epoch and two.cpu_s > 0 and two.train_s > 0
    weights, others = (load_file(trained.model_dir / "model.safetensors") for trained in (one, two))
    for name, value in weights.items():
        assert torch.allclose(value, others[name], atol=5e-3), name
    assert [path.name for path in two.model_dir.parent.iterdir()] == ["model"], "no checkpoint is left"

    logged, expected = (pd.read_csv(tmp_path / "logs" / name / "metrics.csv") for name in ("two", "one"))
    assert logged["step"].tolist() == expected["step"].tolist()
    for column in ("train/grad_norm", "lr-AdamW/pg1", "val/accuracy"):
        assert logged[column].dropna().tolist() == pytest.approx(expected[column].dropna().tolist(), abs=1e-3), column
    lines = [record.message.split(":")[0] for record in caplog.records if record.message.startswith("epoch")]
    assert lines == ["epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3"]


@pytest.mark.slow
def test_the_command_trains_with_two_and_knows_the_job_again(findistill: Command, tiny: Path, tmp_path: Path) -> None:
    command = (
        "stage=teacher", "study=moon", "data=demo", f"teacher={tiny}", "trainer=ddp", "trainer.devices=2", "logger=csv",
        "trainer.accelerator=cpu", "trainer.precision=32", "trainer.max_length=32", "trainer.batch_size=16",
    )  # fmt: skip
    result = findistill(*command)
    assert result.returncode == 0, result.stderr
    [folder] = (tmp_path / "runs" / "moon").glob("teacher-*")
    metrics = json.loads((folder / "metrics.json").read_text())
    alone = findistill(*(one for one in command if one != "trainer=ddp"), "study=alone", "trainer.devices=1")
    assert alone.returncode == 0, alone.stderr
    [other] = (tmp_path / "runs" / "alone").glob("teacher-*")
    expected = json.loads((other / "metrics.json").read_text())
    assert metrics["val/loss"] == pytest.approx(expected["val/loss"], abs=0.05)
    assert metrics["test/accuracy"] == pytest.approx(expected["test/accuracy"], abs=0.1)
    assert not (folder / "checkpoints").exists() and (folder / "predictions.parquet").exists()
    again = findistill(*command)
    assert again.returncode == 0 and "already done" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["distillation", "pretraining"])
def test_every_training_can_be_shared(kind: str, encoder, trainer, labels, corpus, run, tmp_path: Path) -> None:
    """Including when some parameters are unused by a loss, and with the two stages of a student."""
    shared = replace(trainer, **TWO)
    if kind == "pretraining":
        settings = replace(encoder, pretrain=Pretrain(source="own", epochs=1))
        scores = pretrain(settings, corpus.train.texts * 3, Session(shared, tmp_path / "pretrained"))
        assert scores["loss_after"] < scores["loss_before"]
        return
    distill = TeacherDistill(
        objective="tinybert", terms={"hidden": 1.0, "attention": 1.0, "kl": 1.0}, intermediate=Intermediate(1)
    )
    store = Store(tmp_path / "store")
    trained = distil(
        replace(encoder, layers=[2, 4]), distill, labels, corpus.train, corpus.validation, run("teacher").model_dir,
        Session(replace(shared, max_epochs=1), tmp_path / "student"), artifact=store.get, root=store.root,
    )  # fmt: skip
    assert [row["epoch"] for row in trained.history] == [1, 2] and "train/hidden" in trained.history[0]


@pytest.mark.slow
def test_a_mistake_in_one_of_them_is_the_jobs(run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the training loss became nan at optimizer step \d"):
        run("run", learning_rate=1e38, warmup=0.0, gradient_clip_val=None, **TWO)
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.slow
def test_a_killed_one_goes_on_from_its_checkpoint(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system kills one process, the others end too; the next run resumes from the checkpoint."""
    stop = {"stop": {"_target_": "tests.training.test_processes.Killed"}}
    monkeypatch.setenv("FINDISTILL_ALLOW", "tests")
    with pytest.raises(torch.multiprocessing.ProcessExitedException):
        run("run", callbacks=stop, checkpoint_every=4, **TWO)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    assert not multiprocessing.active_children()
    steps = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    trained = run("run", checkpoint_every=4, **TWO)
    assert steps == 8 and len(trained.history) == 3


class Killed(pl.Callback):
    """Kills the second process after 10 steps, as a system out of memory does."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == 10 and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("settings", "gpus", "count"),
    [
        ({}, 2, 1),
        ({"accelerator": "gpu"}, 2, 1),
        ({"accelerator": "gpu", "devices": 2}, 2, 2),
        ({"strategy": "ddp"}, 2, 2),
        ({"strategy": "ddp"}, 0, 1),
        ({"strategy": "fsdp"}, 2, 2),
        ({"strategy": "ddp", "accelerator": "cpu"}, 2, 1),
        ({"devices": -1}, 2, 2),
        ({"devices": OmegaConf.create([1, 3])}, 4, 2),
    ],
    ids=str,
)
def test_one_device_unless_more_are_asked_for(settings, gpus: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert count_of(replace(Trainer(), **settings)) == count


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"devices": 3}, r"batch_size=8 cannot be divided evenly among trainer\.devices=3.*\n.*trainer\.batch_size=9\.$"),
        ({"devices": 2, "unfreeze": "gradual"}, r"trainer\.unfreeze=gradual trains on one device"),
        ({"strategy": "fsdp", "accelerator": "auto"}, r"this machine has none: use trainer=ddp\.$"),
    ],
    ids=str,
)
def test_what_cannot_be_shared_is_said_before_anything_starts(
    run, settings, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=message):
        run("run", **settings)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("trainer.devices=0",), "trainer.devices=0: give a number of devices, -1 for all GPUs, a list of GPUs such as"),
        (("trainer.devices=all",), "trainer.devices=all: give a number"),
        (("trainer=fsdp", "trainer.accelerator=cpu"), "trainer.strategy=fsdp shards a model over GPUs: on a CPU use trainer=ddp"),
        (("trainer.strategy=ddp_spawn",), "trainer.strategy=ddp_spawn: choose one of auto, ddp, fsdp"),
        (("+trainer.num_nodes=2",), "trainer.num_nodes is not set here: training runs on the devices of one machine"),
    ],
    ids=str,
)
def test_devices_that_mean_nothing_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as error:
        validate(composed("stage=teacher", *overrides))
    assert str(error.value).startswith(message)
    validate(composed("stage=teacher", "trainer=ddp", "trainer.devices=[0,1]"))


def test_fsdp_makes_a_unit_of_each_layer(tiny: Path) -> None:
    """What can be checked without a GPU: the strategy, and the parameter groups of an optimizer that sees flattened shards."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny)
    module = EncoderClassifier(model, CrossEntropy(), RECIPE, 2)
    strategy = strategy_of("fsdp", module)
    assert isinstance(strategy, FSDPStrategy)
    policy = strategy.kwargs["auto_wrap_policy"]
    layers = [layer for layer in model.modules() if policy(module=layer, recurse=False, nonwrapped_numel=0)]
    assert layers == list(model.bert.encoder.layer)

    module.configure_model()
    whole = {value: name for name, value in model.named_parameters()}
    flat = [(f"model._fsdp_wrapped_module.{name}", torch.nn.Parameter(value.flatten())) for value, name in whole.items()]
    module.named_parameters = lambda: iter(flat)
    module.trainer = SimpleNamespace(estimated_stepping_batches=10)
    decay, none = module.configure_optimizers()["optimizer"].param_groups
    assert decay["weight_decay"] == 0.01 and none["weight_decay"] == 0.0
    assert len(decay["params"]) == sum(value.ndim > 1 for value in whole)


def test_memory_mapped_arrays_are_not_copied(tmp_path: Path) -> None:
    np.arange(1000, dtype=np.float32).tofile(tmp_path / "a.bin")
    mapped = np.memmap(tmp_path / "a.bin", np.float32, "r").reshape(100, 10)
    sent = packed({"whole": mapped, "part": mapped[3:5]})
    assert len(sent) < 1500
    received = pickle.loads(sent)
    assert isinstance(received["whole"], np.memmap) and np.array_equal(received["whole"], mapped)
    assert np.array_equal(received["part"], mapped[3:5])
