"""Bootstrap intervals over the test rows.

Intervals resample rows, not seeds: they describe how the mean over the given seeds would vary with another test set of
the same size. The spread over seeds is reported beside them as a standard deviation.
"""

from dataclasses import dataclass

import numpy as np

from findistill.stats.metrics import bounds, confusion, resampled_confusions, scores


@dataclass(frozen=True)
class Estimate:
    """A metric's mean over seeds, its standard deviation over seeds (None for one seed) and 95% bounds over rows."""

    mean: float
    sd: float | None
    low: float
    high: float
    per_seed: tuple[float, ...]


def seed_means(
    gold: np.ndarray, predicted: np.ndarray, n_labels: int, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Estimate]:
    """Accuracy, macro F1 and weighted F1 of predictions (seeds, n): mean over seeds, bootstrapped over shared rows."""
    resampled = scores(resampled_confusions(gold, predicted, n_labels, resamples=resamples, seed=seed))
    points = scores(np.stack([confusion(gold, one, n_labels) for one in predicted]))
    return {
        key: Estimate(
            float(points[key].mean()),
            float(points[key].std(ddof=1)) if len(predicted) > 1 else None,
            *bounds(resampled[key].mean(0)),
            tuple(float(value) for value in points[key]),
        )
        for key in ("accuracy", "macro_f1", "weighted_f1")
    }


def accuracy_share(
    correct_a: np.ndarray, correct_b: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Accuracy of method a (seeds_a, n) of bool as a share of method b's (seeds_b, n), with 95% bounds over shared rows."""
    right = np.stack([correct_a.mean(0), correct_b.mean(0)])  # (2, n)
    cells, counts = np.unique(right, axis=1, return_counts=True)
    n_rows = right.shape[1]
    a, b = cells @ np.random.default_rng(seed).multinomial(n_rows, counts / n_rows, size=resamples).T  # (2, resamples)
    low, high = bounds(a / np.maximum(b, 1 / n_rows))
    return float(right[0].sum() / max(right[1].sum(), 1.0)), low, high
