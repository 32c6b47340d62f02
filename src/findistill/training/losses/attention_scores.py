"""Attention before the softmax."""

import torch
from torch.nn import functional

from findistill.errors import UserError
from findistill.training.losses.base import LayerMapTerm, Pair


class AttentionScores(LayerMapTerm):
    """Sum over mapped layers of the mean of (A_student - A_teacher)^2 over heads and pairs of real tokens.

    Scores A = Q K^T / sqrt(head width), before the softmax, flat (real entries,) (TinyBERT, Jiao et al. 2020, section 3.1,
    eq. 7). Heads are compared one by one, so both models must have as many.
    """

    kind = "scores"

    def setup(self, pair: Pair) -> None:
        student, teacher = pair.student, pair.teacher
        if student.heads != teacher.heads:
            raise UserError(
                f"{self.key} compares attention heads one by one: {student.name} has {student.heads}, "
                f"{teacher.name} {teacher.heads}.\nUse distill.terms.query_key and value_value, which match any number of heads."
            )
        super().setup(pair)
        self.heads = teacher.heads

    def compare(self, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return functional.mse_loss(student, teacher)
