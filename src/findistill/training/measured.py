"""The base of all trainings that are evaluated on validation rows after each epoch and keep the best epoch."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from findistill.errors import UserError
from findistill.training.recipe import Recipe, RecipeModule


class MeasuredModule(RecipeModule):
    """Trains `model` with `training_loss`, and records its validation metrics in its history.

    `history` has one row per epoch; `best_epoch` is the one whose weights `load_best` loaded, counted from 1.
    """

    SAFER = "trainer.precision=32"  # what helps if numbers overflow

    def __init__(self, model: PreTrainedModel, recipe: Recipe | Mapping[str, Any]) -> None:
        super().__init__(model, recipe)
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self._losses: dict[str, list[torch.Tensor]] = {}  # of the epoch's batches so far
        self._started = 0.0

    def training_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The loss of a batch."""
        raise NotImplementedError

    def on_train_epoch_start(self) -> None:
        self._started = time.perf_counter()
        self._losses.clear()

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        loss = self.training_loss(batch)
        if not torch.isfinite(loss):
            raise UserError(
                f"the training loss became {loss.item()} at optimizer step {self.global_step}"
                f" (epoch {self.current_epoch + 1})."
                f"\nLower trainer.learning_rate (now {self.recipe.learning_rate:g}) or set {self.SAFER}."
            )
        self._note({"train/loss": loss.detach()})
        self.log("train/loss", loss, batch_size=len(batch["input_ids"]))
        return loss

    def _note(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Record a batch's losses, whose means go into the history."""
        for name, value in losses.items():
            self._losses.setdefault(name, []).append(value)

    def on_train_epoch_end(self) -> None:
        if len(self.history) <= self.current_epoch:  # no validation rows
            self._end_epoch({})

    def _end_epoch(self, measured: dict[str, float]) -> None:
        schedule: Any = self.lr_schedulers()
        # means over batches, and over the processes that share them
        means = {name: torch.stack(values).mean() for name, values in self._losses.items()}
        losses = {name: float(self.trainer.strategy.reduce(mean, reduce_op="mean")) for name, mean in means.items()}
        row = {"epoch": float(self.current_epoch + 1), **losses, **measured}
        self.history.append(row | {"lr": float(schedule.get_last_lr()[0]), "seconds": time.perf_counter() - self._started})

    def load_best(self, path: Path) -> None:
        """Load the best epoch's checkpoint; if there is none (no validation), the last epoch's weights stay."""
        self.best_epoch = len(self.history)
        if path.exists():
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            self.load_state_dict(checkpoint["state_dict"])
            self.best_epoch = len(checkpoint["run"]["history"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the epochs so far, and the current one."""
        epoch_s = time.perf_counter() - self._started
        checkpoint["run"] = {"history": self.history, "losses": self._losses, "epoch_s": epoch_s}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        run = checkpoint["run"]
        self.history, self._losses = run["history"], run["losses"]
        self._started = time.perf_counter() - run["epoch_s"]
