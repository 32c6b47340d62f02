"""Training callbacks: those of the `callbacks` section, and ours."""

import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor
from torch.nn import Parameter
from torch.optim import Optimizer

from findistill.config.compose import plain
from findistill.config.instantiate import build
from findistill.core import search
from findistill.core.progress import ProgressMeter
from findistill.training.checkpoints import mode_of
from findistill.training.recipe import gradient_norm

log = logging.getLogger(__name__)

FREE_BY = 0.75  # share of the steps after which nothing is frozen: as in FinBERT, 4 unfreezings an epoch, 12 layers, 4 epochs


def make(section: Mapping[str, Any] | None, *, validates: bool, logs: bool) -> list[pl.Callback]:
    """The callbacks of a `callbacks` section (name -> node with a `_target_`); None: only a progress bar.

    Those with nothing to do are left out: early stopping without validation, learning rate and gradient norm without a logger.
    """
    if section is None:
        return [Progress()]
    nodes = plain(section) if OmegaConf.is_config(section) else section
    entries = [build(OmegaConf.create(node), f"callbacks.{name}") for name, node in nodes.items()]
    idle = (*(() if validates else (EarlyStopping,)), *(() if logs else (LearningRateMonitor, GradientNorm)))
    return [callback for callback in entries if not isinstance(callback, idle)]


def early_stopping(monitor: str, **settings: Any) -> EarlyStopping:
    """Lightning's EarlyStopping, for which a smaller loss or a larger score is better."""
    return EarlyStopping(monitor, mode=mode_of(monitor), **settings)


class Progress(pl.Callback):
    """One bar on stderr for all steps; if stderr is not a terminal, a log line per epoch and one per minute."""

    reported = 0  # rows of the module's history that were shown

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        total = int(trainer.num_training_batches * (trainer.max_epochs or 1))
        done = trainer.fit_loop.total_batch_idx + 1  # of a resumed run
        hidden = not trainer.is_global_zero
        self.bar = ProgressMeter(total=total, initial=done, desc="training", unit="batch", disable=hidden)
        self.reported = len(getattr(module, "history", ()))

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.bar.update()

    def _report(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Show new rows of the module's history; without validation, an epoch's row is there once the next one begins."""
        history = getattr(module, "history", [])
        for row in history[self.reported :]:
            numbers = ", ".join(f"{name} {row[name]:.4g}" for name in ("train/loss", "val/loss", "val/macro_f1") if name in row)
            if sys.stderr.isatty() and trainer.is_global_zero:
                self.bar.set_postfix_str(f"epoch {row['epoch']:g}: {numbers}")
            elif trainer.is_global_zero:
                log.info("epoch %g of %s: %s, %.1f s", row["epoch"], trainer.max_epochs, numbers, row["seconds"])
        self.reported = len(history)

    on_validation_end = on_train_epoch_start = on_train_end = _report

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if hasattr(self, "bar"):
            self.bar.close()


class Judged(pl.Callback):
    """Reports the monitored score of every validation to a search, which may prune the job."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.monitor in trainer.callback_metrics:
            # Not optimizer steps, of which smaller batches need more.
            epochs = (trainer.fit_loop.total_batch_idx + 1) / trainer.num_training_batches
            search.report(epochs, float(trainer.callback_metrics[self.monitor]))


class GradientNorm(pl.Callback):
    """Logs `train/grad_norm`, the norm over all gradients before clipping, as often as other numbers are logged."""

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Optimizer) -> None:
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:
            module.log("train/grad_norm", gradient_norm(trainer, module))


def trainable_layers(step: int, steps: int, layers: int) -> int:
    """How many layers from the top are trained at `step`; `layers` + 1 means the embeddings too.

    The top one from the start, one more at regular intervals, the embeddings after three quarters of the steps.
    """
    return min(1 + int(step * layers / max(1, FREE_BY * steps)), layers + 1)


class Unfreezing(pl.Callback):
    """Gradual unfreezing, by name and depth, of the parameters that are trainable when this is constructed.

    Frozen layers need no gradients and get no weight decay.
    """

    def __init__(self, parameters: Iterable[tuple[str, Parameter]], depths: dict[str, int]) -> None:
        self.depth = {parameter: depths.get(name, 0) for name, parameter in parameters if parameter.requires_grad}
        self.layers = max(self.depth.values(), default=1) - 1

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        free = trainable_layers(trainer.global_step, int(trainer.estimated_stepping_batches), self.layers)
        for parameter, depth in self.depth.items():
            parameter.requires_grad_(depth <= free)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for parameter in self.depth:
            parameter.requires_grad_(True)
