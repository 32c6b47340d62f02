"""Soft labels as in Hinton et al."""

import torch
from torch.nn import functional

from findistill.training.losses.base import LogitsTerm


class KL(LogitsTerm):
    """T^2 x mean over texts of KL(softmax(z_teacher / T) || softmax(z_student / T)), T = `distill.temperature`.

    Logits z (batch, labels). T^2 keeps the size of the gradients the same for every T (Hinton et al. 2015, section 2).
    """

    def compare(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return self.temperature**2 * functional.kl_div(
            (student / self.temperature).log_softmax(-1),
            (teacher / self.temperature).log_softmax(-1),
            reduction="batchmean",
            log_target=True,
        )
