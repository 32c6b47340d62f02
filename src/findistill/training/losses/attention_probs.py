"""Attention after the softmax."""

import torch
from torch.nn import functional

from findistill.models.features import square
from findistill.training.losses.attention_scores import AttentionScores

MASKED = -1e4  # a score whose softmax is 0; finite, since 0 x infinity is not a number


class AttentionProbs(AttentionScores):
    """Sum over mapped layers of the mean of (softmax(A_student) - softmax(A_teacher))^2 over heads and pairs of real tokens.

    Scores A as in `AttentionScores`; the softmax is over real keys. TinyBERT's paper compares scores (section 3.1, after
    eq. 7: they converge faster); probabilities are what released code often compares instead.
    """

    def compare(self, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        ours, theirs = (attention_probabilities(scores, mask, self.heads) for scores in (student, teacher))
        return functional.mse_loss(ours, theirs)


def attention_probabilities(scores: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """Softmax over real keys of flat `scores` (real entries,), as `features.read` returns them; flat again."""
    real = square(mask, heads)
    return scores.new_full(real.shape, MASKED).masked_scatter(real, scores).softmax(-1)[real]
