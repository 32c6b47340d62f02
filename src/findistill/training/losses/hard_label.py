"""The gold label."""

import torch
from torch.nn import functional

from findistill.training.losses.base import UNLABELLED, Arrays, DistillationTerm, Pair


class HardLabel(DistillationTerm):
    """Mean cross-entropy of the student's logits (batch, labels) and the gold labels (batch,) over the labelled texts.

    0 if a batch has no labelled text. Does not use the teacher.
    """

    def setup(self, pair: Pair) -> None:
        self.student_arrays = ["logits"]

    def forward(self, student: Arrays, teacher: Arrays, mask: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
        labelled = (hard != UNLABELLED).sum().clamp(min=1)
        return functional.cross_entropy(student["logits"], hard, ignore_index=UNLABELLED, reduction="sum") / labelled
