"""What a term of the distillation loss is: a module that says which arrays it compares and returns a scalar.

A term of another package is one class derived from `LogitsTerm`, `LayerMapTerm` or `DistillationTerm`, and one entry of
`distill.terms` with its `_target_`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import nn

from findistill.errors import UserError
from findistill.models.features import Anatomy

UNLABELLED = -1  # the hard label of a text that has none

Arrays = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Pair:
    """Student and teacher, and the settings of `distill` that decide how their layers are compared.

    Attributes:
        student, teacher: their sizes.
        temperature: `distill.temperature`.
        layer_map_setting: `distill.layers`.
        relation_layer, relation_heads: of MiniLM's relations; None: the last layer, the most heads that divide the teacher's
            heads and the student's width.
    """

    student: Anatomy
    teacher: Anatomy
    temperature: float = 1.0
    layer_map_setting: str | Sequence[int] = "uniform"
    relation_layer: int | None = None
    relation_heads: int | None = None

    @cached_property
    def layers(self) -> dict[int, int]:
        """Student layer -> teacher layer, from 1; see `layer_map`."""
        return layer_map(self.layer_map_setting, self.student, self.teacher)


class DistillationTerm(nn.Module):
    """One term of the loss.

    Class attributes say when it is trained and what it needs; `setup` is called once, before the optimizer is created, and
    creates parameters that depend on the sizes of the two models. They are trained and checkpointed with the student.

    Attributes:
        stage: `intermediate` terms are trained first if `distill.intermediate.epochs` is above 0, `prediction` terms last.
        needs_same_tokens: it compares token by token, so both models must split every text into the same pieces.
        key: its place in the configuration, such as `distill.terms.hidden`; errors begin with it.
        weight: its factor in the loss.
        student_arrays, teacher_arrays: names of the arrays that `forward` reads (`findistill.models.features`).
    """

    stage: ClassVar[Literal["intermediate", "prediction"]] = "prediction"
    needs_same_tokens: ClassVar[bool] = False

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self.key = "distill.terms"
        self.student_arrays: list[str] = []
        self.teacher_arrays: list[str] = []

    def setup(self, pair: Pair) -> None:
        """Name the arrays, check that the two models can be compared, create parameters.

        Raises:
            UserError: they cannot be compared by this term.
        """
        raise NotImplementedError

    def forward(self, student: Arrays, teacher: Arrays, mask: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
        """The unweighted loss, a scalar.

        Args:
            student, teacher: the named arrays, entries of real tokens only, in float32: logits (batch, labels); hidden,
                query, key and value (real tokens, width); scores (real entries,).
            mask: (batch, length) bool, true for real tokens.
            hard: (batch,) int64 gold labels, `UNLABELLED` where a text has none.
        """
        raise NotImplementedError


class LogitsTerm(DistillationTerm):
    """A term on logits alone: a subclass defines `compare`. Logits of the teacher are in the order of our labels."""

    temperature = 1.0  # `distill.temperature`, set by `setup`

    def setup(self, pair: Pair) -> None:
        self.student_arrays = self.teacher_arrays = ["logits"]
        self.temperature = pair.temperature

    def compare(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar, of two sets of logits (batch, labels)."""
        raise NotImplementedError

    def forward(self, student: Arrays, teacher: Arrays, mask: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
        return self.compare(student["logits"], teacher["logits"])


class LayerMapTerm(DistillationTerm):
    """A term on arrays of one kind, summed over the layers of `distill.layers`: a subclass sets `kind` and defines `compare`.

    Attributes:
        kind: hidden, scores, query, key or value.
        with_embeddings: whether the embeddings (`hidden/0`) are compared too.
    """

    stage = "intermediate"
    needs_same_tokens = True
    kind: ClassVar[str]
    with_embeddings: ClassVar[bool] = False

    def setup(self, pair: Pair) -> None:
        layers = [(0, 0)] if self.with_embeddings else []
        layers += pair.layers.items()
        self.student_arrays = [f"{self.kind}/{layer}" for layer, _ in layers]
        self.teacher_arrays = [f"{self.kind}/{layer}" for _, layer in layers]

    def compare(self, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar, of one layer: (real tokens, width) each, or for scores (real entries,)."""
        raise NotImplementedError

    def forward(self, student: Arrays, teacher: Arrays, mask: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
        names = zip(self.student_arrays, self.teacher_arrays, strict=True)
        return torch.stack([self.compare(student[small], teacher[large], mask) for small, large in names]).sum()


def layer_map(how: str | Sequence[int], student: Anatomy, teacher: Anatomy) -> dict[int, int]:
    """Student layer -> teacher layer, both counted from 1; S and T layers.

    `uniform`: m -> mT/S, the last layer of each block (TinyBERT). `last`: m -> T - S + m. `skip`: every k-th teacher
    layer from the bottom, k = T // S, the student's last layer left to the prediction terms (PKD-skip, Sun et al.
    2019). A list names the teacher layer of each student layer.

    Raises:
        UserError: a list that does not fit the two models; a student deeper than its teacher.
    """
    small, large = student.depth, teacher.depth
    if not isinstance(how, str):
        if len(how) != small or not all(1 <= layer <= large for layer in how):
            raise UserError(
                f"distill.layers={list(how)}: give one layer of the teacher, 1 to {large}, for each of the student's {small}."
            )
        return dict(enumerate(how, 1))
    if small > large:
        raise UserError(
            f"distill.layers={how}: the student has {small} layers, its teacher {large}."
            f"\nName a teacher layer for each: distill.layers=[...]"
        )
    if how == "uniform":
        return {layer: math.floor(layer * large / small + 0.5) for layer in range(1, small + 1)}
    if how == "last":
        return {layer: large - small + layer for layer in range(1, small + 1)}
    if small < 2:
        raise UserError("distill.layers=skip leaves the student's last layer unmatched, but it has no other layer: use uniform.")
    return {layer: layer * (large // small) for layer in range(1, small)}
