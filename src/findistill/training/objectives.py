"""What a student learns from votes (Deng et al. 2023, section 3): CLS and REG, and REG's scalar variant.

CLS is cross-entropy on the hard label. REG is the squared error between the student's distribution and the vote shares.
The paper's text leaves open whether REG regresses that distribution or one number, so the scalar is offered as well:
score = positive share - negative share, and two thresholds, chosen on validation data, turn scores into classes.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn import functional

from findistill.models.config import Encoder
from findistill.models.heads import Scale
from findistill.training.config import Distill, Teacher


def balanced_weights(hard: np.ndarray, n_labels: int) -> np.ndarray:
    """(n_labels,) float32 N / (K * N_class), the mean over examples being 1; 0 for a label that never occurs."""
    counts = np.bincount(hard, minlength=n_labels)
    return np.divide(len(hard), n_labels * counts, out=np.zeros(n_labels), where=counts > 0).astype(np.float32)


OBJECTIVES: dict[str, type["Objective"]] = {}

Class = TypeVar("Class", bound="type[Objective]")


def objective(*names: str) -> Callable[[Class], Class]:
    """Register a class of objective for values of `distill.objective` or `teacher.objective`."""

    def register(cls: Class) -> Class:
        OBJECTIVES.update(dict.fromkeys(names, cls))
        return cls

    return register


class Objective:
    """A loss on labels or votes, and how to interpret the head that it trains; `scale` is set if the head has one output.

    A custom objective is a subclass, registered with `@objective("mine")` in the module that a package's entry point
    names, and a YAML file with `objective: mine`.

    Args:
        settings: the `distill` section, or the encoder if it is trained on human labels.
        names: the labels, in the order of columns.
        hard: the training labels, (n,) int64.

    Raises:
        UserError: labels that the objective cannot use.
    """

    scale: Scale | None = None

    def __init__(self, settings: Any = None, names: Sequence[str] = (), hard: np.ndarray | None = None) -> None:
        pass

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar, of logits (batch, outputs), vote shares (batch, labels) and hard labels (batch,)."""
        raise NotImplementedError

    @staticmethod
    def of(
        distill: Distill | None, names: Sequence[str], hard: np.ndarray, encoder: Teacher | Encoder | None = None
    ) -> "Objective":
        """The objective of `distill` or, if that is None, of `encoder` on human labels, by default cross-entropy."""
        settings = encoder if distill is None else distill
        return OBJECTIVES[getattr(settings, "objective", "classification")](settings, names, hard)


@objective("cls", "classification")
class CrossEntropy(Objective):
    """CLS, also for teachers: mean cross-entropy on the hard label, with `label_smoothing` and `class_weights` if set.

    With class weights the mean is weighted (divided by the weights' sum).
    """

    def __init__(self, settings: Any = None, names: Sequence[str] = (), hard: np.ndarray | None = None) -> None:
        self.label_smoothing = getattr(settings, "label_smoothing", 0.0)
        self.weights: torch.Tensor | None = None
        if hard is not None and getattr(settings, "class_weights", "none") == "balanced":
            self.weights = torch.from_numpy(balanced_weights(hard, len(names)))

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
        weights = None if self.weights is None else self.weights.to(logits.device)
        return functional.cross_entropy(logits.float(), hard, weight=weights, label_smoothing=self.label_smoothing)


@objective("reg", "regression")
class Regression(Objective):
    """REG: squared error between softmax(logits) and the vote shares, SUMMED over labels, averaged over examples.

    With one-hot targets this is the Brier score, 0 to 2. With `target` scalar, as for a teacher's regression: squared error
    between tanh(logit) and positive share - negative share, in [-1, 1].
    """

    def __init__(self, settings: Any = None, names: Sequence[str] = (), hard: np.ndarray | None = None) -> None:
        if getattr(settings, "target", "scalar") == "scalar":
            self.scale = Scale.of(names)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
        if self.scale is None:
            return (logits.float().softmax(dim=-1) - targets).square().sum(dim=-1).mean()
        score = targets[:, self.scale.positive] - targets[:, self.scale.negative]
        return (logits.float().tanh().squeeze(-1) - score).square().mean()
