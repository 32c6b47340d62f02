"""Hidden states."""

import torch
from torch import nn
from torch.nn import functional

from findistill.training.losses.base import LayerMapTerm, Pair


class HiddenStates(LayerMapTerm):
    """Sum over mapped layers, embeddings included, of the mean of (H_student W - H_teacher)^2 over real tokens and width.

    Hidden states H (real tokens, width). If the widths differ, W is one linear map with a bias, shared by all layers and
    trained with the student; otherwise there is none (TinyBERT, Jiao et al. 2020, section 3.1, eq. 8 and 9; `fit_dense` of
    its code).
    """

    kind = "hidden"
    with_embeddings = True

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.projection: nn.Linear | None = None

    def setup(self, pair: Pair) -> None:
        super().setup(pair)
        if pair.student.width != pair.teacher.width:
            self.projection = nn.Linear(pair.student.width, pair.teacher.width)

    def compare(self, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.projection is not None:
            student = self.projection(student).float()
        return functional.mse_loss(student, teacher)
