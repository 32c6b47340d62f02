"""A classifier's output for texts."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """Label probabilities (n, n_labels) float64, columns named by `labels`; the most probable label of each text.

    A model with a scalar head also returns `scores`, (n,) float64 in [-1, 1].
    """

    probabilities: np.ndarray
    labels: tuple[str, ...]
    predicted: list[str]
    scores: np.ndarray | None = None
