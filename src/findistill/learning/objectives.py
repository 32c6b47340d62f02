"""What a student learns from votes (Deng et al. 2023, section 3): CLS and REG, and REG's scalar reading.

CLS is cross-entropy on the hard label. REG is the squared error between the student's distribution and the vote shares.
The paper's text leaves open whether REG regresses that distribution or one number, so the scalar is offered as well:
score = positive share - negative share, and two thresholds, chosen on validation data, turn scores into classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from findistill.errors import UserError

if TYPE_CHECKING:
    from findistill.settings.schema import Distill, Encoder, Teacher

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]  # logits, targets, hard -> scalar

GRID = np.round(np.arange(-0.95, 0.96, 0.05), 2)  # thresholds tried: coarse, since validation sets are small


def cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    hard: torch.Tensor,
    *,
    label_smoothing: float = 0.0,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """CLS: mean cross-entropy on `hard`; with class weights the mean is weighted (divided by the weights' sum)."""
    weights = weights.to(logits.device) if weights is not None else None
    return functional.cross_entropy(logits.float(), hard, weight=weights, label_smoothing=label_smoothing)


def share_error(logits: torch.Tensor, targets: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
    """REG: squared error between softmax(logits) and the vote shares, SUMMED over labels, averaged over examples.

    With one-hot targets this is the Brier score, 0 to 2.
    """
    return (logits.float().softmax(dim=-1) - targets).square().sum(dim=-1).mean()


def scalar_error(
    logits: torch.Tensor, targets: torch.Tensor, hard: torch.Tensor, *, positive: int, negative: int
) -> torch.Tensor:
    """REG, scalar reading: squared error between tanh(logit) and positive share - negative share, in [-1, 1]."""
    score = targets[:, positive] - targets[:, negative]
    return (logits.float().tanh().squeeze(-1) - score).square().mean()


def balanced_weights(hard: np.ndarray, n_labels: int) -> np.ndarray:
    """(n_labels,) float32 N / (K * N_class), the mean over examples being 1; 0 for a label that never occurs."""
    counts = np.bincount(hard, minlength=n_labels)
    return np.divide(len(hard), n_labels * counts, out=np.zeros(n_labels), where=counts > 0).astype(np.float32)


def _weights(hard: np.ndarray, names: Sequence[str]) -> torch.Tensor:
    return torch.from_numpy(balanced_weights(hard, len(names)))


@dataclass(frozen=True)
class Thresholds:
    """Scores below `negative` are negative, above `positive` positive; with two labels both are the one cut."""

    negative: float
    positive: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Scale:
    """A labelled line from negative (-1) over neutral, if there is one, to positive (1): column numbers of each."""

    negative: int
    positive: int
    neutral: int | None

    @classmethod
    def of(cls, names: Sequence[str]) -> "Scale":
        """The scale of these label names. Raises UserError unless they are negative, positive and maybe neutral."""
        if not {"negative", "positive"} <= set(names) <= {"negative", "neutral", "positive"}:
            raise UserError(
                f"distill.target=scalar (teacher.objective=regression) needs the labels negative, positive and perhaps neutral,"
                f" not {list(names)}.\nUse distill.target=distribution (teacher.objective=classification)."
            )
        neutral = names.index("neutral") if "neutral" in names else None
        return cls(names.index("negative"), names.index("positive"), neutral)

    def shares(self, scores: np.ndarray, thresholds: Thresholds) -> np.ndarray:
        """Scores (n,) in [-1, 1] to label shares (n, n_labels) float64, rows summing to 1.

        The scores are stretched so that the thresholds fall where neighbouring labels have equal shares: the largest
        share is the class, and each label's share still rises and falls with the score.
        """
        low, high = thresholds.negative, thresholds.positive
        if self.neutral is None:
            line = np.interp(scores, [-1, low, 1], [-1, 0, 1])
            shares = np.empty((len(line), 2))
            shares[:, self.positive], shares[:, self.negative] = (1 + line) / 2, (1 - line) / 2
        else:
            line = np.interp(scores, [-1, low, high, 1], [-1, -0.5, 0.5, 1])
            shares = np.empty((len(line), 3))
            shares[:, self.positive], shares[:, self.negative] = line.clip(min=0), (-line).clip(min=0)
            shares[:, self.neutral] = 1 - np.abs(line)
        return shares

    def from_scores(self, scores: np.ndarray) -> np.ndarray:
        """Label shares (n, n_labels) float64 with positive share - negative share = score, rows summing to 1."""
        return self.shares(scores, Thresholds(0, 0) if self.neutral is None else Thresholds(-0.5, 0.5))

    def choose(self, scores: np.ndarray, hard: np.ndarray) -> Thresholds:
        """The thresholds with the best macro F1 on these VALIDATION scores; among equals the closest to thirds."""
        if self.neutral is None:
            options = [Thresholds(float(cut), float(cut)) for cut in sorted(GRID, key=abs)]
            n_labels = 2
        else:
            pairs = [(low, high) for low in GRID for high in GRID if low < high]
            pairs.sort(key=lambda pair: abs(pair[0] + 1 / 3) + abs(pair[1] - 1 / 3))
            options = [Thresholds(float(low), float(high)) for low, high in pairs]
            n_labels = 3
        quality = [macro_f1(hard, self.shares(scores, option).argmax(axis=1), n_labels) for option in options]
        return options[int(np.argmax(quality))]


def macro_f1(gold: np.ndarray, predicted: np.ndarray, n_labels: int) -> float:
    """Mean F1 over all `n_labels` labels; a label that is neither there nor predicted counts 0, as in scikit-learn."""
    table = np.bincount(gold * n_labels + predicted, minlength=n_labels**2).reshape(n_labels, n_labels)
    both = table.sum(axis=0) + table.sum(axis=1)
    return float(np.divide(2 * table.diagonal(), both, out=np.zeros(n_labels), where=both > 0).mean())


@dataclass(frozen=True)
class Objective:
    """A loss and how the head it trains is read; `scale` is set where the head has one output."""

    loss: Loss
    scale: Scale | None = None

    @classmethod
    def of(
        cls, distill: "Distill | None", names: Sequence[str], hard: np.ndarray, teacher: "Teacher | Encoder | None" = None
    ) -> "Objective":
        """The objective that `distill` asks for, or where it is None, what `teacher` is to learn from human labels.

        Plain cross-entropy unless the teacher says otherwise; its regression is the scalar reading, with the data's own
        scores. `hard` are the training labels. Raises UserError for settings that contradict each other.
        """
        if distill is None:
            if getattr(teacher, "objective", "classification") == "regression":
                return cls.scalar(names)
            balanced = getattr(teacher, "class_weights", "none") == "balanced"
            return cls(partial(cross_entropy, weights=_weights(hard, names) if balanced else None))
        if distill.class_weights not in ("none", "balanced"):
            raise UserError(f"distill.class_weights={distill.class_weights}: choose none or balanced.")
        if distill.objective == "cls":
            weights = _weights(hard, names) if distill.class_weights == "balanced" else None
            return cls(
                partial(
                    cross_entropy,
                    label_smoothing=distill.label_smoothing,
                    weights=weights,
                )
            )
        if distill.objective != "reg":
            raise UserError(f"distill.objective={distill.objective}: choose cls or reg.")
        if distill.label_smoothing or distill.class_weights != "none":
            raise UserError(
                "distill.label_smoothing and distill.class_weights are for distill.objective=cls;"
                " reg learns the vote shares as they are."
            )
        if distill.target == "distribution":
            return cls(share_error)
        if distill.target != "scalar":
            raise UserError(f"distill.target={distill.target}: choose distribution or scalar.")
        return cls.scalar(names)

    @classmethod
    def scalar(cls, names: Sequence[str]) -> "Objective":
        """Regression on positive share - negative share."""
        scale = Scale.of(names)
        return cls(partial(scalar_error, positive=scale.positive, negative=scale.negative), scale)


def probabilities(logits: np.ndarray, scale: Scale | None, thresholds: Thresholds | None) -> np.ndarray:
    """Label probabilities (n, n_labels) float64: softmax of logits, or the shares of a scalar head's scores."""
    logits = logits.astype(np.float64)
    if scale is not None and thresholds is not None:
        return scale.shares(np.tanh(logits[:, 0]), thresholds)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)
