"""Raw logits."""

import torch
from torch.nn import functional

from findistill.training.losses.base import LogitsTerm


class LogitsMSE(LogitsTerm):
    """Mean over texts and labels of (z_student - z_teacher)^2, logits z (batch, labels) (Ba and Caruana 2014, section 2.2)."""

    def compare(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return functional.mse_loss(student, teacher)
