"""A training killed (SIGKILL) halfway resumes and ends with the same weights as an uninterrupted one."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from findistill.core.store import Store
from findistill.data.labels import LabelSet
from findistill.models.config import Encoder, Pretrain
from findistill.training.classifier import EncoderClassifier
from findistill.training.config import Intermediate, TeacherDistill, Trainer
from findistill.training.distillation import distil
from findistill.training.loop import Session
from findistill.training.pretraining import MaskedLanguage, pretrain
from findistill.training.recipe import RecipeModule
from findistill.training.trainer import Trained, fit
from tests.fixtures.models import Corpus

SERVER = multiprocessing.get_context("forkserver")  # loads the libraries once for all killed processes
SERVER.set_forkserver_preload([__name__])

TEXTS = [f"The {size} shop {verb} its {item}" for size in ("old", "new") for verb in ["raises", "cuts", "sells", "keeps", "sees"]
         for item in ["profit", "sales", "debt", "bread", "ovens", "shops", "staff", "price", "orders", "loans"]]  # fmt: skip
TRAINER = Trainer(accelerator="cpu", precision="32", schedule="slanted", layer_decay=0.9, unfreeze="gradual", checkpoint_every=2)


def teacher(encoder: Encoder, labels: LabelSet, corpus: Corpus, folder: Path) -> Trained:
    """18 steps in 3 epochs."""
    stop = {"stop": {"_target_": "findistill.training.callbacks.early_stopping", "monitor": "val/macro_f1", "patience": 3}}
    return fit(encoder, None, labels, corpus.train, corpus.validation, Session(TRAINER, folder, callbacks=stop))


def student(encoder: Encoder, labels: LabelSet, corpus: Corpus, folder: Path) -> Trained:
    """12 steps on the intermediate terms, then 18."""
    store = Store(folder.parent / f"store-{folder.name}")
    distill = TeacherDistill(
        objective="tinybert", terms={"hidden": 1.0, "attention": 1.0, "kl": 1.0}, intermediate=Intermediate(epochs=2)
    )
    small, trainer = replace(encoder, layers=[2, 4]), Trainer(accelerator="cpu", precision="32", checkpoint_every=2)
    return distil(
        small, distill, labels, corpus.train, corpus.validation, folder.parent / "teacher", Session(trainer, folder),
        artifact=store.get, root=store.root,
    )  # fmt: skip


def pretrained(encoder: Encoder, labels: LabelSet, corpus: Corpus, folder: Path) -> dict[str, float]:
    """24 steps in 2 epochs."""
    settings = replace(encoder, pretrain=Pretrain(source="own", epochs=2))
    return pretrain(settings, TEXTS, Session(Trainer(accelerator="cpu", precision="32", checkpoint_every=2), folder))


def killed(train: Callable[..., Any], module: type[RecipeModule], at: int, *arguments: Any) -> None:
    """Run `train` and kill this process after `at` batches."""
    step, steps = module.training_step, [0]

    def killing(self: RecipeModule, batch: Any, index: int) -> torch.Tensor:
        steps[0] += 1
        if steps[0] > at:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch, index)

    module.training_step = killing  # type: ignore[method-assign]
    train(*arguments)


def result(trained: Any) -> Any:
    if isinstance(trained, Trained):
        return [{name: value for name, value in row.items() if name != "seconds"} for row in trained.history], trained.best_epoch
    return trained


@pytest.mark.parametrize(
    ("train", "module", "at", "checkpoint"),
    [
        (teacher, EncoderClassifier, 10, "last.ckpt"),
        (student, EncoderClassifier, 8, "stage0/last.ckpt"),
        (student, EncoderClassifier, 22, "stage1/last.ckpt"),
        (pretrained, MaskedLanguage, 17, "last.ckpt"),
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(
    train: Callable[..., Any], module: type[RecipeModule], at: int, checkpoint: str,
    encoder: Encoder, labels: LabelSet, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if train is student:
        teacher(encoder, labels, corpus, tmp_path / "teacher")
    whole = train(encoder, labels, corpus, tmp_path / "whole")
    arguments = (encoder, labels, corpus, tmp_path / "parts")
    process = SERVER.Process(target=killed, args=(train, module, at, *arguments))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    state = torch.load(tmp_path / "parts" / "checkpoints" / checkpoint, weights_only=True)
    assert state["global_step"] > 0

    steps, original = [0], module.training_step

    def counting(self: RecipeModule, batch: Any, index: int) -> torch.Tensor:
        steps[0] += 1
        return original(self, batch, index)

    monkeypatch.setattr(module, "training_step", counting)
    parts = train(*arguments)
    total = {teacher: 18, student: 30, pretrained: 24}[train]
    assert steps[0] < total, "it began from the start"
    assert result(parts) == result(whole)
    weights = [path.read_bytes() for part in ("parts", "whole") for path in (tmp_path / part).rglob("*.safetensors")]
    assert len(weights) == 2 and weights[0] == weights[1]
    assert not list((tmp_path / "parts").rglob("*.ckpt"))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "best.ckpt": lambda content: content[: len(content) // 2],
    "last.ckpt": lambda content: content[:1000] + bytes([content[1000] ^ 1]) + content[1001:],  # torch would load it
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_no_beginning(
    name: str, encoder: Encoder, labels: LabelSet, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    whole = teacher(encoder, labels, corpus, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        step, counter = EncoderClassifier.training_step, iter(range(11))
        patch.setattr(EncoderClassifier, "training_step", lambda *batch: 1 / (10 - next(counter)) and step(*batch))
        teacher(encoder, labels, corpus, tmp_path / "parts")
    checkpoint = tmp_path / "parts" / "checkpoints" / name
    checkpoint.write_bytes(DAMAGE[name](checkpoint.read_bytes()))
    caplog.set_level("WARNING", "findistill")
    parts = teacher(encoder, labels, corpus, tmp_path / "parts")
    assert result(parts) == result(whole)
    weights = [path.read_bytes() for part in ("parts", "whole") for path in (tmp_path / part).rglob("*.safetensors")]
    assert len(weights) == 2 and weights[0] == weights[1]
    assert caplog.messages == [f"{checkpoint} is damaged; it is kept as {name}.damaged and training starts from scratch"]
