"""Precision-recall curves and calibration, from predicted probabilities.

Rows are given as label positions (n,) int64, -1 for a missing prediction; see `metrics.codes`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve

BINS = 15
Key = int | Literal["micro"]


@dataclass(frozen=True)
class Curve:
    """A precision-recall curve, from the lowest threshold (recall 1) to the point (recall 0, precision 1)."""

    precision: np.ndarray  # (points,)
    recall: np.ndarray  # (points,), falling
    thresholds: np.ndarray  # (points - 1,), rising
    average_precision: float

    def at(self, recall: np.ndarray) -> np.ndarray:
        """Precision at the highest threshold that still reaches each requested recall; same shape as `recall`."""
        first = np.searchsorted(self.recall[::-1], np.asarray(recall) - 1e-12, side="left")
        return self.precision[::-1][first]


@dataclass(frozen=True)
class Reliability:
    """Predictions binned by confidence, the probability given to the predicted label."""

    edges: np.ndarray  # (bins + 1,)
    count: np.ndarray  # (bins,)
    confidence: np.ndarray  # (bins,) mean confidence, NaN where a bin is empty
    accuracy: np.ndarray  # (bins,) share of right predictions, NaN where a bin is empty
    ece: float  # sum over bins of count / n * |accuracy - confidence|; 0 without predictions


def precision_recall(gold: np.ndarray, probabilities: np.ndarray) -> dict[Key, Curve]:
    """One-against-rest curves by label position, and `micro`: all (row, label) pairs pooled.

    Average precision is scikit-learn's step sum, not an interpolated area. Labels absent from gold have no curve. Rows
    without probabilities (NaN) count with a score of 0.
    """
    curves: dict[Key, Curve] = {}
    for key, truth, score in _problems(gold, probabilities):
        precision, recall, thresholds = precision_recall_curve(truth, score)
        curves[key] = Curve(precision, recall, thresholds, float(average_precision_score(truth, score)))
    return curves


def average_precisions(gold: np.ndarray, probabilities: np.ndarray) -> dict[Key, float]:
    """Average precision by label position (labels absent from gold left out), and `micro`."""
    return {key: float(average_precision_score(truth, score)) for key, truth, score in _problems(gold, probabilities)}


def reliability(gold: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray, bins: int = BINS) -> Reliability:
    """Bins of equal width on (0, 1], over the rows that have a prediction and probabilities.

    Confidence is the probability of the *predicted* label, which need not be the largest: a scalar model decides by
    its own thresholds.
    """
    rows = np.arange(len(gold))
    confidence = probabilities[rows, np.maximum(predicted, 0)]
    valid = (predicted >= 0) & np.isfinite(confidence)
    confidence, right = confidence[valid], (predicted == gold)[valid]
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(place, weights=confidence, minlength=bins) / count
        accuracy = np.bincount(place, weights=right, minlength=bins) / count
    gaps = np.nan_to_num(np.abs(accuracy - mean_confidence))
    return Reliability(edges, count, mean_confidence, accuracy, float((count * gaps).sum() / max(1, count.sum())))


def _problems(gold: np.ndarray, probabilities: np.ndarray) -> list[tuple[Key, np.ndarray, np.ndarray]]:
    """Key, truth and score of each one-against-rest problem, and of all of them pooled."""
    truth, scores = np.eye(probabilities.shape[1], dtype=bool)[gold], np.nan_to_num(probabilities, nan=0.0)
    labels: list[tuple[Key, np.ndarray, np.ndarray]] = [
        (label, truth[:, label], scores[:, label]) for label in np.flatnonzero(truth.any(axis=0)).tolist()
    ]
    return [*labels, ("micro", truth.ravel(), scores.ravel())]
