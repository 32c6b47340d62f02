"""Checkpoints of a training in `folder/checkpoints`: the best epoch's weights, and the state to resume a killed run from."""

import logging
import shutil
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from findistill.core.files import replacing

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
EVERY = 500  # optimizer steps between two checkpoints of an encoder


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint under another name and renames it, so that a kill leaves either the old or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with replacing(Path(path)) as aside:
            super().save_checkpoint(checkpoint, aside, storage_options)


def best_of(folder: Path, monitor: str) -> ModelCheckpoint:
    """Lightning's callback that keeps the weights of the best validation, the first of equal ones, in `folder/best.ckpt`."""
    return ModelCheckpoint(
        folder, "best", monitor=monitor, mode=mode_of(monitor), save_weights_only=True, save_on_train_epoch_end=False,
        enable_version_counter=False,
    )  # fmt: skip


def mode_of(monitor: str) -> str:
    """Whether the least (`min`) or the largest (`max`) value of a metric is the best."""
    return "min" if monitor == "val/loss" else "max"


def remove(folder: Path) -> None:
    """Remove the checkpoints of a training in `folder` whose model is saved."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def set_damaged_aside(folder: Path) -> None:
    """Rename checkpoints if one of them is damaged, so that training starts from the beginning instead of resuming."""
    paths = [path for name in ("best.ckpt", "last.ckpt") if (path := folder / name).exists()]
    if damaged := [path for path in paths if not _is_whole(path)]:
        for path in paths:  # one alone is useless: the best weights are of steps before the last
            path.replace(path.with_suffix(".ckpt.damaged"))
        log.warning("%s is damaged; it is kept as %s.damaged and training starts from scratch", damaged[0], damaged[0].name)


def _is_whole(path: Path) -> bool:
    """Whether all parts of a checkpoint have the checksums that torch wrote, but does not verify on reading."""
    try:
        with zipfile.ZipFile(path) as parts:
            return parts.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError):  # depending on the damage
        return False


class End(pl.Callback):
    """Writes the last weights to `folder/end.ckpt`, for the process that started the training processes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "end.ckpt"

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.path, weights_only=True)  # by all ranks, to gather a sharded model


def load_end(module: pl.LightningModule, folder: Path) -> None:
    """Load what `End` wrote."""
    checkpoint = torch.load(folder / "end.ckpt", map_location="cpu", weights_only=True)
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])


class Last(Checkpoint):
    """Writes `folder/last.ckpt` after at least `every` optimizer steps; a run that resumes from it reaches the same weights.

    Checkpoints are written between two batches of an epoch, neither after the last one nor before a validation, whose data
    loader would draw from the generators again on resuming. They hold the generators' states (torch's, and `rows.rng` if the
    rows have one) and the times that earlier parts of the run took.
    """

    def __init__(self, folder: Path, every: int, rows: Any) -> None:
        self.path, self.every = folder / "last.ckpt", every
        self.generator = getattr(rows, "rng", None)
        self.before = {"train_s": 0.0, "cpu_s": 0.0}  # of earlier, killed parts of this run
        self._clocks = time.perf_counter(), time.process_time()
        self._saved_at = 0
        self._rng: dict[str, torch.Tensor] = {}

    @property
    def resume(self) -> Path | None:
        """The checkpoint to resume from, if an earlier run wrote one."""
        return self.path if self.path.exists() else None

    def took(self) -> dict[str, float]:
        """Seconds of training so far, wall (`train_s`) and processor (`cpu_s`), of all parts of the run."""
        wall, cpu = self._clocks
        parts = {"train_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        return {name: self.before[name] + seconds for name, seconds in parts.items()}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Lightning resumes its counts from the checkpoint, but requests the epoch's batches from the first one on.
        trainer.train_dataloader.sampler.skip = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        self._saved_at = trainer.global_step

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if self._rng:  # creating the loaders drew from it after the checkpoint was loaded
            torch.set_rng_state(self._rng["cpu"].cpu())
            if "cuda" in self._rng:
                torch.cuda.set_rng_state(self._rng["cuda"].cpu())
            self._rng = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        validates = done == trainer.num_training_batches or done % trainer.val_check_batch == 0
        stepped = done % trainer.accumulate_grad_batches == 0 and trainer.global_step - self._saved_at >= self.every
        if stepped and not validates and not trainer.fast_dev_run:
            trainer.save_checkpoint(self.path, weights_only=False)
            self._saved_at = trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        rng = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_initialized():
            rng["cuda"] = torch.cuda.get_rng_state()
        rows = self.generator.bit_generator.state if self.generator else None
        return {"rng": rng, "rows": rows, "took": self.took()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.before, self._rng = state_dict["took"], state_dict["rng"]
        if self.generator:
            self.generator.bit_generator.state = state_dict["rows"]
