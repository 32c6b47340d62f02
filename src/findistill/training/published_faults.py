"""Distillation with the faults of TinyFinBERT's released code, all or one of them (`distill.recipe`); see `config.FAULTS`.

The fault `selection` also validates on test rows: `stage=student` passes them as the validation rows.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from findistill.training.config import SHIPPED_TERMS, TeacherDistill, faults
from findistill.training.distiller import Distiller, Stage
from findistill.training.losses.base import Pair
from findistill.training.losses.hidden_states import HiddenStates
from findistill.training.losses.soft_cross_entropy import SoftCrossEntropy
from findistill.training.recipe import schedule

CHECK_EVERY = 50  # steps between two validations, fault `selection`


class ProjectedTeacher(HiddenStates):
    """Fault `projection`: the teacher's hidden states are mapped down by a random linear map that is never trained."""

    def setup(self, pair: Pair) -> None:
        super(HiddenStates, self).setup(pair)
        if pair.student.width != pair.teacher.width:
            self.projection = nn.Linear(pair.teacher.width, pair.student.width).requires_grad_(False)

    def compare(self, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return functional.mse_loss(student, teacher if self.projection is None else self.projection(teacher).float())


class AveragedCrossEntropy(SoftCrossEntropy):
    """Fault `mean`: the soft cross-entropy is averaged over texts and classes."""

    def compare(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return self.summands(student, teacher).mean()


class PublishedDistiller(Distiller):
    """A `Distiller` with the faults that `distill.recipe` names."""

    def __init__(self, model: PreTrainedModel, stage: Stage, n_labels: int, distill: TeacherDistill) -> None:
        super().__init__(model, stage, n_labels, distill)
        self.faults = faults(distill.recipe)
        self.check_every = CHECK_EVERY if stage.is_last and "selection" in self.faults else None

    @classmethod
    def term_nodes(cls, distill: TeacherDistill) -> dict[str, dict[str, Any]]:
        """The terms, with the classes above and `attention_probs` in place of `attention` if a fault requires them."""
        nodes, active = super().term_nodes(distill), faults(distill.recipe)
        if "attention" in active and "attention" in nodes:
            probs = nodes.setdefault("attention_probs", {"_target_": SHIPPED_TERMS["attention_probs"], "weight": 0.0})
            probs["weight"] += nodes.pop("attention")["weight"]
        for fault, name, term in (("projection", "hidden", ProjectedTeacher), ("mean", "soft_ce", AveragedCrossEntropy)):
            if fault in active and name in nodes:
                nodes[name]["_target_"] = f"{__name__}.{term.__name__}"
        return nodes

    def configure_optimizers(self) -> dict[str, Any]:
        optimizers = super().configure_optimizers()
        if self.stage.is_last and "schedule" in self.faults:
            # The study divided its number of batches, not of examples, by the batch size.
            recipe, texts = self.recipe, len(self.trainer.train_dataloader.dataset)
            steps = max(1, math.ceil(texts / recipe.batch_size) // recipe.batch_size * recipe.epochs)
            optimizers["lr_scheduler"]["scheduler"] = schedule(optimizers["optimizer"], "linear", recipe.warmup, steps)
        return optimizers
