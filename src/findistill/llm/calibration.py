"""Calibrating label probabilities.

A small model prefers some label words whatever the text, and is over-confident. Both are corrected by one offset per
label and one scale, fitted on a few texts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from findistill.data.labels import LabelSet

Scores = Mapping[str, float]  # label name -> log-probability
CONTENT_FREE = ("N/A", "[MASK]", "-")


@dataclass(frozen=True)
class Calibration:
    """Calibrated log-probabilities are `scale * log-probability + offset`, normalised."""

    offsets: dict[str, float]
    scale: float = 1.0

    def apply(self, row: Scores) -> dict[str, float]:
        """Calibrated log-probabilities whose probabilities add up to 1."""
        return normalised({name: self.scale * row[name] + offset for name, offset in self.offsets.items()})


def none(labels: LabelSet) -> Calibration:
    return Calibration(dict.fromkeys(labels.names, 0.0))


def from_texts(rows: Sequence[Scores], labels: LabelSet) -> Calibration:
    """Batch calibration (Zhou et al. 2024): subtract each label's mean log-probability over the texts.

    It needs no gold label, but assumes that the labels are about equally frequent.
    """
    return Calibration({name: -math.fsum(row[name] for row in rows) / len(rows) for name in labels.names})


def from_content_free(rows: Sequence[Scores], labels: LabelSet) -> Calibration:
    """Contextual calibration (Zhao et al. 2021): divide by the label probabilities of content-free texts.

    `rows` are the scores of `CONTENT_FREE` under the same demonstrations.
    """
    means = {name: math.fsum(math.exp(row[name]) for row in rows) / len(rows) for name in labels.names}
    return Calibration({name: -math.log(max(mean, 1e-12)) for name, mean in means.items()})


def from_labelled(rows: Sequence[Scores], gold: Sequence[str], labels: LabelSet) -> Calibration:
    """The offsets and the scale under which labelled texts are most probable (bias-corrected temperature scaling).

    Texts are weighted by the inverse square root of their label's share: halfway between the pool's label distribution,
    under which a weak model would give nearly every text the most frequent label, and a uniform one. A standard normal
    prior on the offsets and on the log of the scale keeps the fit stable for few rows and for a label without any.
    """
    scores = np.array([[row[name] for name in labels.names] for row in rows])
    truth = np.array([labels.index(label) for label in gold])
    weights = 1 / np.sqrt(np.bincount(truth, minlength=len(labels))[truth])
    weights *= len(truth) / weights.sum()

    def loss(parameters: np.ndarray) -> float:
        logits = np.exp(parameters[0]) * scores + parameters[1:]
        likelihood = logits[np.arange(len(truth)), truth] - np.logaddexp.reduce(logits, axis=1)
        return float(-(weights * likelihood).sum() + 0.5 * (parameters**2).sum())

    parameters = minimize(loss, np.zeros(1 + len(labels.names))).x
    return Calibration(dict(zip(labels.names, parameters[1:].tolist(), strict=True)), scale=math.exp(parameters[0]))


def normalised(row: Scores) -> dict[str, float]:
    """Log-probabilities shifted so that the probabilities add up to 1."""
    top = max(row.values())
    total = top + math.log(math.fsum(math.exp(value - top) for value in row.values()))
    return {name: value - total for name, value in row.items()}
