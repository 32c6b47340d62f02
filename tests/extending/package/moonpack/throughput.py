"""A callback: how many texts a second the training gets through."""

import time
from typing import Any

import pytorch_lightning as pl


class Throughput(pl.Callback):
    """Logs `train/texts_per_s` at the end of each epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.started, self.texts = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.texts += len(batch["hard"])

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        module.log("train/texts_per_s", self.texts / (time.perf_counter() - self.started))
