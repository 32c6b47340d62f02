"""Soft labels as in TinyBERT."""

import torch

from findistill.training.losses.base import LogitsTerm


class SoftCrossEntropy(LogitsTerm):
    """Mean over texts of -sum over labels of softmax(z_teacher / T) log softmax(z_student / T), T = `distill.temperature`.

    Logits z (batch, labels). Without Hinton's factor T^2 (TinyBERT, Jiao et al. 2020, section 3.1, eq. 10).
    """

    def compare(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return self.summands(student, teacher).sum(-1).mean()

    def summands(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """(batch, labels): their sum over labels is a text's loss."""
        return -(teacher / self.temperature).softmax(-1) * (student / self.temperature).log_softmax(-1)
