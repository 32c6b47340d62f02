"""A loss term on logits: how far apart the two likeliest labels are."""

import torch

from findistill.training.losses.base import LogitsTerm


class Margin(LogitsTerm):
    """Mean of |m_student - m_teacher|^power, m a text's largest logit less its second largest."""

    def __init__(self, weight: float = 1.0, power: float = 2.0) -> None:
        super().__init__(weight)
        self.power = power

    def compare(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """A scalar, of logits (batch, labels)."""
        return (_margin(student) - _margin(teacher)).abs().pow(self.power).mean()


def _margin(logits: torch.Tensor) -> torch.Tensor:
    first, second = logits.topk(2, dim=-1).values.unbind(-1)
    return first - second
