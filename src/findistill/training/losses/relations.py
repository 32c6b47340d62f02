"""Self-attention relations: MiniLM's pair of them (Wang et al. 2020: query-key and value-value) over MiniLM v2's relation heads.

MiniLM v2 (Wang et al. 2021, section 3.1) splits queries, keys and values into relation heads, whatever the number of attention
heads, and uses query-query, key-key and value-value relations; the terms here keep version 1's pair.
"""

import math
from typing import ClassVar

import torch

from findistill.errors import UserError
from findistill.training.losses.attention_probs import MASKED
from findistill.training.losses.base import Arrays, DistillationTerm, Pair


class RelationTerm(DistillationTerm):
    """Mean over real query tokens and relation heads of KL(R_teacher || R_student), R = softmax(A B^T / sqrt d).

    A and B are (real tokens, width) arrays of one layer, each split into `distill.relation_heads` heads of width d: both
    models need the same number of relation heads, but not the same width or number of attention heads. The
    student's last layer is compared with the teacher's `distill.relation_layer`, by default its last.
    """

    stage = "intermediate"
    needs_same_tokens = True
    kinds: ClassVar[tuple[str, str]]  # of the arrays A and B

    def setup(self, pair: Pair) -> None:
        student, teacher = pair.student, pair.teacher
        layer, heads = pair.relation_layer, pair.relation_heads
        if layer is not None and layer > teacher.depth:
            raise UserError(f"distill.relation_layer={layer}: {teacher.name} has {teacher.depth} layers.")
        if heads is not None and (student.width % heads or teacher.width % heads):
            raise UserError(
                f"distill.relation_heads={heads} must divide both widths, {student.width} and {teacher.width}; "
                "leave it null to have one chosen."
            )
        self.heads = heads or math.gcd(teacher.heads, student.width)
        self.student_arrays = [f"{kind}/{student.depth}" for kind in self.kinds]
        self.teacher_arrays = [f"{kind}/{layer or teacher.depth}" for kind in self.kinds]

    def forward(self, student: Arrays, teacher: Arrays, mask: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
        ours, theirs = (
            relation(arrays[names[0]], arrays[names[1]], mask, self.heads)
            for arrays, names in ((student, self.student_arrays), (teacher, self.teacher_arrays))
        )
        return relation_kl(ours, theirs, mask)


def relation(one: torch.Tensor, other: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """log softmax(A B^T / sqrt d) of `one` and `other`, (real tokens, width), split into `heads` relation heads.

    Returns (batch, heads, length, length); columns of padded keys hold about -10^4, rows of padded queries are meaningless.
    """
    left, right = (_split(each, mask, heads) for each in (one, other))
    scores = left @ right.transpose(2, 3) / math.sqrt(left.shape[-1])
    return scores.masked_fill(~mask[:, None, None, :], MASKED).log_softmax(-1)


def relation_kl(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) of two `relation`s, averaged over real query tokens and heads."""
    rows = (teacher.exp() * (teacher - student)).sum(-1)  # (batch, heads, length)
    return rows.transpose(1, 2)[mask].mean()


def _split(flat: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """(real tokens, width) to (batch, heads, length, width / heads)."""
    padded = flat.new_zeros(*mask.shape, flat.shape[-1])
    padded[mask] = flat
    return padded.unflatten(-1, (heads, -1)).transpose(1, 2)
