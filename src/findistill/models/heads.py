"""What a trained model's outputs mean: label probabilities of a softmax head, or of a scalar head on a scale with thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from findistill.errors import UserError
from findistill.models.folder import LABELS, THRESHOLDS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LONGEST = 512  # tokens, for a model without a limit of its own
GRID = np.round(np.arange(-0.95, 0.96, 0.05), 2)  # thresholds tried: coarse, since validation sets are small


@dataclass(frozen=True)
class Thresholds:
    """Scores below `negative` are negative, above `positive` positive; with two labels both are the same."""

    negative: float
    positive: float


@dataclass(frozen=True)
class Scale:
    """A scale from negative (-1) via neutral, if there is one, to positive (1): the column of each label."""

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
        return np.stack(self.columns(np.interp(scores, *self.knots(thresholds))), axis=-1)

    def knots(self, thresholds: Thresholds) -> tuple[list[float], list[float]]:
        """The knots of the piecewise linear stretch: scores, and their places on the stretched line."""
        if self.neutral is None:
            return [-1.0, thresholds.negative, 1.0], [-1.0, 0.0, 1.0]
        return [-1.0, thresholds.negative, thresholds.positive, 1.0], [-1.0, -0.5, 0.5, 1.0]

    def columns(self, line: Any) -> list[Any]:
        """The share of each label, in label order, at points (n,) of the stretched line, an array or a tensor."""
        if self.neutral is None:
            shares = {self.positive: (1 + line) / 2, self.negative: (1 - line) / 2}
        else:
            shares = {self.positive: line.clip(min=0), self.negative: (-line).clip(min=0), self.neutral: 1 - abs(line)}
        return [shares[column] for column in sorted(shares)]

    def from_scores(self, scores: np.ndarray) -> np.ndarray:
        """Label shares (n, n_labels) float64 with positive share - negative share = score, rows summing to 1."""
        return self.shares(scores, Thresholds(0, 0) if self.neutral is None else Thresholds(-0.5, 0.5))

    def choose(self, scores: np.ndarray, hard: np.ndarray) -> Thresholds:
        """The thresholds with the best macro F1 on these VALIDATION scores; ties: nearest to -1/3, 1/3 (two labels: 0)."""
        if self.neutral is None:
            pairs, n_labels = sorted(zip(GRID, GRID, strict=True), key=lambda pair: abs(pair[0])), 2
        else:
            pairs = [(low, high) for low in GRID for high in GRID if low < high]
            pairs, n_labels = sorted(pairs, key=lambda pair: abs(pair[0] + 1 / 3) + abs(pair[1] - 1 / 3)), 3
        options = [Thresholds(float(low), float(high)) for low, high in pairs]
        quality = [macro_f1(hard, self.shares(scores, option).argmax(axis=1), n_labels) for option in options]
        return options[int(np.argmax(quality))]


def macro_f1(gold: np.ndarray, predicted: np.ndarray, n_labels: int) -> float:
    """Mean F1 over the labels that occur in `gold` or `predicted`, as in scikit-learn."""
    table = np.bincount(gold * n_labels + predicted, minlength=n_labels**2).reshape(n_labels, n_labels)
    both = table.sum(axis=0) + table.sum(axis=1)
    return float((2 * table.diagonal()[both > 0] / both[both > 0]).mean())


def no_numbers(text: str) -> UserError:
    """The error for a model whose outputs for a text are NaN or infinite."""
    return UserError(f"the model returns NaN or infinite values for the text {text[:60]!r}: its weights are damaged")


def refuse_no_numbers(outputs: np.ndarray, texts: Sequence[str]) -> None:
    """Raise UserError if a row of the outputs (n, labels) is not finite."""
    finite = np.isfinite(outputs).all(axis=1)
    if not finite.all():
        raise no_numbers(texts[int(np.argmin(finite))])


def probabilities(logits: np.ndarray, scale: Scale | None, thresholds: Thresholds | None) -> np.ndarray:
    """Label probabilities (n, n_labels) float64: softmax of logits, or the shares of a scalar head's scores."""
    logits = logits.astype(np.float64)
    if scale is not None and thresholds is not None:
        return scale.shares(np.tanh(logits[:, 0]), thresholds)
    return softmax(logits, axis=1)


def label_head(model: "PreTrainedModel") -> tuple[tuple[str, ...], Scale | None, Thresholds | None]:
    """Label names of a trained model, with scale and thresholds if its head is scalar."""
    config = model.config
    if getattr(config, THRESHOLDS, None):
        names = tuple(getattr(config, LABELS))
        return names, Scale.of(names), Thresholds(**getattr(config, THRESHOLDS))
    return tuple(config.id2label[i] for i in range(config.num_labels)), None, None


def text_length(trainer: Any, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int:
    """Where texts are truncated, in tokens: `trainer.max_length`, or what the tokenizer and the positions allow."""
    return window_of(model, tokenizer) if trainer.max_length is None else int(trainer.max_length)


def window_of(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int:
    """Tokens that a model reads at once: the lower of its tokenizer's limit and its number of positions."""
    return int(min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", LONGEST)))
