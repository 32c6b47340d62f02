"""The LightningModule of an encoder with a classification head, trained on labels (teacher) or votes (student)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from findistill.models.heads import macro_f1, probabilities
from findistill.training.measured import MeasuredModule
from findistill.training.objectives import Objective
from findistill.training.recipe import Recipe


class EncoderClassifier(MeasuredModule):
    """Trains `model` for `objective` and evaluates it on validation rows after every epoch."""

    def __init__(self, model: PreTrainedModel, objective: Objective, recipe: Recipe | Mapping[str, Any], n_labels: int) -> None:
        super().__init__(model, recipe)
        self.save_hyperparameters({"n_labels": n_labels}, logger=False)
        self.objective, self.n_labels = objective, n_labels
        self._outputs: list[dict[str, torch.Tensor]] = []

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits (batch, outputs)."""
        return self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits

    def training_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.objective.loss(self(batch), batch["targets"], batch["hard"])

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        self._outputs.append({"logits": self(batch).float(), "targets": batch["targets"], "hard": batch["hard"]})

    def on_validation_epoch_end(self) -> None:
        logits, targets, hard = (torch.cat([output[name] for output in self._outputs]) for name in ("logits", "targets", "hard"))
        self._outputs.clear()
        if self.trainer.sanity_checking:
            return
        gold, outputs, scale = hard.cpu().numpy(), logits.cpu().numpy(), self.objective.scale
        thresholds = scale.choose(np.tanh(outputs[:, 0]), gold) if scale else None
        predicted = probabilities(outputs, scale, thresholds).argmax(axis=1)
        measured = {
            "val/loss": float(self.objective.loss(logits, targets, hard)),
            "val/macro_f1": macro_f1(gold, predicted, self.n_labels),
            "val/accuracy": float((predicted == gold).mean()),
        }
        self.log_dict(measured, batch_size=len(gold))
        self._end_epoch(measured)
