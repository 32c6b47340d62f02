"""The one LightningModule: an encoder with a classification head, trained on labels (teacher) or votes (student)."""

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from tqdm import tqdm

from findistill.errors import UserError
from findistill.learning.objectives import Objective, macro_f1, probabilities
from findistill.learning.recipe import Recipe, RecipeModule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MONITORS = ("val/macro_f1", "val/accuracy", "val/loss")


class EncoderClassifier(RecipeModule):
    """Trains `model` for `objective`, measures it on validation rows after every epoch, keeps the best weights.

    `history` has one row an epoch; `best_state` (on the CPU) and `best_epoch` belong to the best `recipe.monitor`.
    A run without validation rows keeps the last epoch's weights.
    """

    SAFER = "trainer.precision=32"  # what helps where numbers overflow

    def __init__(self, model: "PreTrainedModel", objective: Objective, recipe: Recipe, n_labels: int) -> None:
        super().__init__(model, recipe)
        self.objective, self.n_labels = objective, n_labels
        self.history: list[dict[str, float]] = []
        self.best_state: dict[str, torch.Tensor] = {}
        self.best_epoch = 0
        self._best = -math.inf
        self._losses: list[torch.Tensor] = []
        self._outputs: list[dict[str, torch.Tensor]] = []
        self._started = 0.0

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits (batch, outputs)."""
        return self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits

    def on_train_epoch_start(self) -> None:
        self._started = time.perf_counter()
        self._losses.clear()

    def training_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.objective.loss(self(batch), batch["targets"], batch["hard"])

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        loss = self.training_loss(batch)
        if not torch.isfinite(loss):
            raise UserError(
                f"the training loss became {loss.item()} at optimizer step {self.global_step}"
                f" (epoch {self.current_epoch + 1})."
                f"\nLower trainer.learning_rate (now {self.recipe.learning_rate:g}) or set {self.SAFER}."
            )
        self._losses.append(loss.detach())
        self.log("train/loss", loss, batch_size=len(batch["hard"]))
        return loss

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        self._outputs.append({"logits": self(batch).float(), "targets": batch["targets"], "hard": batch["hard"]})

    def on_validation_epoch_end(self) -> None:
        logits, targets, hard = (torch.cat([output[name] for output in self._outputs]) for name in ("logits", "targets", "hard"))
        self._outputs.clear()
        gold = hard.cpu().numpy()
        predicted = self._classify(logits.cpu().numpy(), gold)
        measured = {
            "val/loss": float(self.objective.loss(logits, targets, hard)),
            "val/macro_f1": macro_f1(gold, predicted, self.n_labels),
            "val/accuracy": float((predicted == gold).mean()),
        }
        self.log_dict(measured, batch_size=len(gold))
        self._end_epoch(measured)

    def on_train_epoch_end(self) -> None:
        if len(self.history) <= self.current_epoch:  # no validation rows
            self._end_epoch({})

    def _classify(self, logits: np.ndarray, gold: np.ndarray) -> np.ndarray:
        scale = self.objective.scale
        thresholds = scale.choose(np.tanh(logits[:, 0]), gold) if scale else None
        return probabilities(logits, scale, thresholds).argmax(axis=1)

    def _end_epoch(self, measured: dict[str, float]) -> None:
        schedule: Any = self.lr_schedulers()
        self.history.append(
            {
                "epoch": float(self.current_epoch + 1),
                "train/loss": float(torch.stack(self._losses).mean()),
                **measured,
                "lr": float(schedule.get_last_lr()[0]),
                "seconds": time.perf_counter() - self._started,
            }
        )
        value = measured.get(self.recipe.monitor, float(self.current_epoch))
        score = -value if self.recipe.monitor == "val/loss" and measured else value
        if score > self._best:
            self._best, self.best_epoch = score, self.current_epoch + 1
            self.best_state = {name: value.detach().cpu().clone() for name, value in self.kept().items()}

    def kept(self) -> dict[str, torch.Tensor]:
        """The weights that make the best epoch's model."""
        return dict(self.model.state_dict())


class Progress(pl.Callback):
    """One tqdm bar on stderr for all steps; none where stderr is no terminal."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        total = int(trainer.num_training_batches * (trainer.max_epochs or 1))
        self.bar = tqdm(total=total, desc="training", unit="batch", disable=None, leave=False)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.bar.update()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if isinstance(module, EncoderClassifier) and module.history:
            self.bar.set_postfix(epoch=len(module.history), macro_f1=f"{module.history[-1].get('val/macro_f1', 0):.3f}")

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if hasattr(self, "bar"):
            self.bar.close()
