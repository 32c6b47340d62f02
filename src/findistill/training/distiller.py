"""The LightningModule of distillation from a teacher model."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from findistill.models.batches import Rows
from findistill.models.features import read
from findistill.training.classifier import EncoderClassifier
from findistill.training.config import TeacherDistill, term_nodes
from findistill.training.losses.weighted import WeightedTerms
from findistill.training.objectives import CrossEntropy
from findistill.training.recipe import Recipe
from findistill.training.teacher_outputs import TeacherOutputs


@dataclass(frozen=True)
class Stage:
    """A stage of distillation: its terms and recipe."""

    terms: WeightedTerms
    recipe: Recipe
    is_last: bool = True


@dataclass(frozen=True)
class TeacherRows(Rows):
    """`Rows` whose batches also hold the teacher's arrays for their texts, as `teacher/<array>`."""

    outputs: TeacherOutputs
    columns: list[int]  # the teacher's logits in the order of our labels
    names: list[str]

    def __getitem__(self, indexes: list[int]) -> dict[str, torch.Tensor]:
        arrays = self.outputs.rows(indexes, self.names)
        if "logits" in arrays:
            arrays["logits"] = arrays["logits"][:, self.columns]
        return super().__getitem__(indexes) | {f"teacher/{name}": value for name, value in arrays.items()}


class Distiller(EncoderClassifier):
    """Trains `model` on the terms of a stage; evaluated on validation labels like `EncoderClassifier`.

    Each term is logged unweighted, `train/<term>`, and weighted, `train/<term>/weighted`; a row of `history` has its
    unweighted mean.
    """

    check_every: int | None = None  # batches between two validations; None: an epoch

    def __init__(self, model: PreTrainedModel, stage: Stage, n_labels: int, distill: TeacherDistill) -> None:
        super().__init__(model, CrossEntropy(), stage.recipe, n_labels)
        self.stage, self.distill, self.terms = stage, distill, stage.terms

    @classmethod
    def term_nodes(cls, distill: TeacherDistill) -> dict[str, dict[str, Any]]:
        """The terms to build, by name."""
        return term_nodes(distill.terms)

    def training_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        teacher = {name.removeprefix("teacher/"): value for name, value in batch.items() if name.startswith("teacher/")}
        student = read(self.model, batch, self.terms.student_arrays)
        values = self.terms(student, teacher, batch["attention_mask"], batch["hard"])
        losses = {f"train/{name}": value.detach() for name, value in values.items()}
        self._note(losses)
        losses |= {f"train/{name}/weighted": value.detach() for name, value in self.terms.weighted(values).items()}
        self.log_dict(losses, batch_size=len(batch["hard"]))
        return self.terms.total(values)

    def _end_epoch(self, measured: dict[str, float]) -> None:
        super()._end_epoch(measured)
        steps = int(self.trainer.num_training_batches)
        done = (self.trainer.fit_loop.epoch_loop.batch_progress.current.processed or steps) / steps
        self.history[-1]["epoch"] = self.current_epoch + done
