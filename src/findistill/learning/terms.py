"""What a student can learn from a teacher: the terms of the loss, and which layer is compared with which.

| term | compares | from |
| --- | --- | --- |
| kl | T^2 x KL of the softened label distributions | Hinton et al. 2015 |
| soft_ce | cross-entropy to the teacher's softened distribution, no T^2 | TinyBERT, eq. 10 |
| logits_mse | logits as they are | Ba and Caruana 2014 |
| hard | cross-entropy on the gold label; unlabelled texts do not count | |
| hidden | hidden states, embeddings included; mean over real tokens and width | TinyBERT, eq. 8 and 9 |
| attention | attention scores before the softmax; mean over real entries and heads | TinyBERT, eq. 7 |
| attention_probs | attention probabilities, the same mean | |
| query_key, value_value | KL of softmax(A B^T / sqrt d) over relation heads; mean over real tokens and heads | MiniLM v2 |

A term that compares several layers is their sum. Every term is computed in float32.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from findistill.errors import UserError
from findistill.learning.adapter import Anatomy, square
from findistill.settings.rules import INTERMEDIATE
from findistill.settings.schema import faults

if TYPE_CHECKING:
    from findistill.settings.schema import TeacherDistill

PREDICTION = ("kl", "soft_ce", "logits_mse", "hard")

UNLABELLED = -1  # the hard label of a text that has none
NEVER = -1e4  # a score whose softmax is 0; finite, since 0 x infinity is not a number


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
                f"distill.layers={list(how)}: one layer of the teacher, 1 to {large}, for each of the student's {small}."
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
        raise UserError("distill.layers=skip leaves the student's last layer free, and it has no other: use uniform.")
    return {layer: layer * (large // small) for layer in range(1, small)}


def kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Logits (batch, labels): T^2 x mean over examples of KL(teacher || student), both softened by T."""
    return temperature**2 * functional.kl_div(
        (student / temperature).log_softmax(-1),
        (teacher / temperature).log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )


def soft_cross_entropy(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Logits (batch, labels): (batch, labels) summands of the cross-entropy, whose sum over labels is a text's loss."""
    return -(teacher / temperature).softmax(-1) * (student / temperature).log_softmax(-1)


def hard_label(student: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the labelled texts, 0 where a batch has none."""
    labelled = (hard != UNLABELLED).sum().clamp(min=1)
    return functional.cross_entropy(student, hard, ignore_index=UNLABELLED, reduction="sum") / labelled


def attention_probabilities(scores: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """Softmax over real keys of flat `scores`, as `adapter.read` gives them; flat again."""
    real = square(mask, heads)
    return _padded(scores, real).softmax(-1)[real]


def relation(one: torch.Tensor, other: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """log softmax(A B^T / sqrt d) of `one` and `other`, (real tokens, width), split into `heads` relation heads.

    Returns (batch, heads, length, length); columns of padded keys hold about -10^4, rows of padded queries nothing of use.
    """
    left, right = (_split(each, mask, heads) for each in (one, other))
    scores = left @ right.transpose(2, 3) / math.sqrt(left.shape[-1])
    return scores.masked_fill(~mask[:, None, None, :], NEVER).log_softmax(-1)


def relation_kl(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) of two `relation`s, averaged over real query tokens and heads."""
    rows = (teacher.exp() * (teacher - student)).sum(-1)  # (batch, heads, length)
    return rows.transpose(1, 2)[mask].mean()


def _padded(flat: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    return flat.new_full(real.shape, NEVER).masked_scatter(real, flat)


def _split(flat: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """(real tokens, width) to (batch, heads, length, width / heads)."""
    padded = flat.new_zeros(*mask.shape, flat.shape[-1])
    padded[mask] = flat
    return padded.unflatten(-1, (heads, -1)).transpose(1, 2)


class Terms(nn.Module):
    """The weighted terms of one stage of distillation, and the projection that they train.

    Where the widths differ, one linear map, shared by all layers, takes the student's hidden states up to the teacher's
    width (TinyBERT's `fit_dense`). With the fault `projection` it takes the teacher's down and stays as it was drawn.
    """

    def __init__(self, distill: "TeacherDistill", names: Sequence[str], student: Anatomy, teacher: Anatomy) -> None:
        super().__init__()
        self.faults = faults(distill.recipe)
        self.weights = {name: float(getattr(distill.terms, name)) for name in names if getattr(distill.terms, name)}
        if "attention" in self.faults and "attention" in self.weights:
            self.weights["attention_probs"] = self.weights.pop("attention") + self.weights.get("attention_probs", 0.0)
        self.temperature = distill.temperature
        self.heads = teacher.heads
        layers = layer_map(distill.layers, student, teacher) if self.weights.keys() & set(INTERMEDIATE) else {}
        last = (student.depth, distill.relation_layer or teacher.depth)
        self.layers = {
            "hidden": [(0, 0), *layers.items()],
            "attention": list(layers.items()),
            "attention_probs": list(layers.items()),
            "query_key": [last],
            "value_value": [last],
        }
        self._check_heads(distill, student, teacher)
        self.relation_heads = distill.relation_heads or math.gcd(teacher.heads, student.width)
        self.projection: nn.Linear | None = None
        if "hidden" in self.weights and student.width != teacher.width:
            if "projection" in self.faults:
                self.projection = nn.Linear(teacher.width, student.width).requires_grad_(False)
            else:
                self.projection = nn.Linear(student.width, teacher.width)

    def _check_heads(self, distill: "TeacherDistill", student: Anatomy, teacher: Anatomy) -> None:
        maps = self.weights.keys() & {"attention", "attention_probs"}
        if maps and student.heads != teacher.heads:
            raise UserError(
                f"distill.terms.{min(maps)} compares attention heads one by one: {student.name} has {student.heads}, "
                f"{teacher.name} {teacher.heads}.\nUse distill.terms.query_key and value_value, which match any number of heads."
            )
        if not self.weights.keys() & {"query_key", "value_value"}:
            return
        if distill.relation_layer is not None and distill.relation_layer > teacher.depth:
            raise UserError(f"distill.relation_layer={distill.relation_layer}: {teacher.name} has {teacher.depth} layers.")
        heads = distill.relation_heads
        if heads is not None and (student.width % heads or teacher.width % heads):
            raise UserError(
                f"distill.relation_heads={heads} must divide both widths, {student.width} and {teacher.width}; "
                "leave it null to have one chosen."
            )

    @property
    def by_token(self) -> bool:
        """Whether any term compares token with token, which needs the same tokens on both sides."""
        return bool(self.weights.keys() & set(INTERMEDIATE))

    def wanted(self) -> tuple[list[str], list[str]]:
        """The arrays that the terms compare: the student's and the teacher's, without repeats."""
        student, teacher = [], []
        if self.weights.keys() & set(PREDICTION):
            student.append("logits")
        if self.weights.keys() & (set(PREDICTION) - {"hard"}):
            teacher.append("logits")
        kinds = {
            "hidden": ("hidden",),
            "attention": ("scores",),
            "attention_probs": ("scores",),
            "query_key": ("query", "key"),
            "value_value": ("value",),
        }
        for name in self.weights:
            for kind in kinds.get(name, ()):
                student += [f"{kind}/{small}" for small, _ in self.layers[name]]
                teacher += [f"{kind}/{large}" for _, large in self.layers[name]]
        return list(dict.fromkeys(student)), list(dict.fromkeys(teacher))

    def forward(
        self, student: dict[str, torch.Tensor], teacher: dict[str, torch.Tensor], mask: torch.Tensor, hard: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The terms by name, unweighted; arrays as `adapter.read` gives them, `mask` (batch, length) of real tokens."""
        mask = mask.bool()
        return {name: self._term(name, student, teacher, mask, hard).float() for name in self.weights}

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """The loss: the weighted sum."""
        return torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()

    def _term(
        self,
        name: str,
        student: dict[str, torch.Tensor],
        teacher: dict[str, torch.Tensor],
        mask: torch.Tensor,
        hard: torch.Tensor,
    ) -> torch.Tensor:
        if name == "hard":
            return hard_label(student["logits"].float(), hard)
        if name in PREDICTION:
            return self._prediction(name, student["logits"].float(), teacher["logits"].float())
        return torch.stack([self._layer(name, student, teacher, mask, *pair) for pair in self.layers[name]]).sum()

    def _prediction(self, name: str, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        if name == "kl":
            return kl(student, teacher, self.temperature)
        if name == "logits_mse":
            return functional.mse_loss(student, teacher)
        summands = soft_cross_entropy(student, teacher, self.temperature)
        return summands.mean() if "mean" in self.faults else summands.sum(-1).mean()

    def _layer(
        self,
        name: str,
        student: dict[str, torch.Tensor],
        teacher: dict[str, torch.Tensor],
        mask: torch.Tensor,
        small: int,
        large: int,
    ) -> torch.Tensor:
        if name == "hidden":
            ours, theirs = student[f"hidden/{small}"].float(), teacher[f"hidden/{large}"].float()
            if self.projection is not None and "projection" in self.faults:
                theirs = self.projection(theirs).float()
            elif self.projection is not None:
                ours = self.projection(ours).float()
            return functional.mse_loss(ours, theirs)
        if name in ("attention", "attention_probs"):
            ours, theirs = student[f"scores/{small}"].float(), teacher[f"scores/{large}"].float()
            if name == "attention_probs":
                ours, theirs = (attention_probabilities(each, mask, self.heads) for each in (ours, theirs))
            return functional.mse_loss(ours, theirs)
        left, right = name.split("_")
        relations = [
            relation(side[f"{left}/{layer}"].float(), side[f"{right}/{layer}"].float(), mask, self.relation_heads)
            for side, layer in ((student, small), (teacher, large))
        ]
        return relation_kl(relations[0], relations[1], mask)
