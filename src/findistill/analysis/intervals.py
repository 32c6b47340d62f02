"""How sure one may be: intervals over the test rows and paired tests between methods on the same rows.

Intervals resample rows, not seeds: they say how the mean over the seeds at hand would move with another test set of
the same size. The spread over seeds is reported beside them as a standard deviation.
"""

from dataclasses import dataclass
from math import lcm

import numpy as np

from findistill.analysis.metrics import bounds, confusion, resampled_confusions, scores
from findistill.errors import UserError

NEGLIGIBLE = 1e-60  # probability of a sign pattern's head count that no p-value can feel


@dataclass(frozen=True)
class Estimate:
    """A metric's mean over seeds, its standard deviation over seeds (None for one seed) and 95% bounds over rows."""

    mean: float
    sd: float | None
    low: float
    high: float
    per_seed: tuple[float, ...]


@dataclass(frozen=True)
class Paired:
    """Two methods on the same rows: the difference a - b of a metric, 95% paired bootstrap bounds, two-sided p."""

    difference: float
    low: float
    high: float
    p: float | None


def seed_means(
    gold: np.ndarray, predicted: np.ndarray, n_labels: int, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Estimate]:
    """Accuracy, macro F1 and weighted F1 of predictions (seeds, n): mean over seeds, bootstrapped over shared rows."""
    drawn = scores(resampled_confusions(gold, predicted, n_labels, resamples=resamples, seed=seed))
    points = scores(np.stack([confusion(gold, one, n_labels) for one in predicted]))
    return {
        key: Estimate(
            float(points[key].mean()),
            float(points[key].std(ddof=1)) if len(predicted) > 1 else None,
            *bounds(drawn[key].mean(0)),
            tuple(float(value) for value in points[key]),
        )
        for key in ("accuracy", "macro_f1", "weighted_f1")
    }


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Exact two-sided McNemar test on the rows (n,) of bool where only one of two predictions is right; p in (0, 1]."""
    from scipy.stats import binomtest

    only_a, only_b = int((correct_a & ~correct_b).sum()), int((~correct_a & correct_b).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def paired(
    correct_a: np.ndarray,
    correct_b: np.ndarray,
    ids_a: np.ndarray | None = None,
    ids_b: np.ndarray | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Paired:
    """Difference of accuracy between methods a (seeds_a, n) and b (seeds_b, n) of bool, on the same n rows.

    Each row's difference is that of its two means over seeds. The bounds resample these differences. The p-value is the
    exact sign-flip permutation test: were the methods alike, each row's difference would as soon have the other sign;
    p is the share of all 2^n sign patterns whose sum is at least as far from 0 as the observed one. The differences are
    whole multiples of 1 / lcm(seeds_a, seeds_b), so that share is counted, not sampled. With one seed each it is
    McNemar's exact test.

    Raises:
        UserError: `ids_a` and `ids_b` are given and are not the same rows in the same order.
    """
    if ids_a is not None and ids_b is not None and not np.array_equal(ids_a, ids_b):
        raise UserError("the two methods were tested on different rows: a paired test needs the same ids in one order.")
    unit = lcm(len(correct_a), len(correct_b))
    steps = correct_a.sum(0) * (unit // len(correct_a)) - correct_b.sum(0) * (unit // len(correct_b))
    values, counts = np.unique(steps, return_counts=True)
    n_rows = len(steps)
    drawn = np.random.default_rng(seed).multinomial(n_rows, counts / n_rows, size=resamples) @ values
    low, high = bounds(drawn / (n_rows * unit))
    return Paired(float(steps.sum() / (n_rows * unit)), low, high, _sign_flip(steps))


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


def paired_macro_f1(
    gold: np.ndarray, a: np.ndarray, b: np.ndarray, n_labels: int, *, resamples: int = 2000, seed: int = 0
) -> Paired:
    """Difference of mean macro F1 between predictions a (seeds_a, n) and b (seeds_b, n); bounds only, no p-value."""
    both = np.vstack([a, b])
    points = scores(np.stack([confusion(gold, one, n_labels) for one in both]))["macro_f1"]
    drawn = scores(resampled_confusions(gold, both, n_labels, resamples=resamples, seed=seed))["macro_f1"]
    low, high = bounds(drawn[: len(a)].mean(0) - drawn[len(a) :].mean(0))
    return Paired(float(points[: len(a)].mean() - points[len(a) :].mean()), low, high, None)


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p-values, in the given order."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _sign_flip(steps: np.ndarray) -> float:
    """Share of sign patterns of the whole numbers `steps` with |sum| >= |observed sum|.

    The rows of one magnitude m sum to m * (2 * Binomial(count, 1/2) - count); the magnitudes' distributions are
    convolved on the grid of whole numbers.
    """
    from scipy.stats import binom

    sizes, counts = np.unique(np.abs(steps[steps != 0]), return_counts=True)
    reach = int((sizes * counts).sum())
    mass = np.zeros(2 * reach + 1)  # of the sums -reach .. reach
    mass[reach] = 1.0
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        spread = np.zeros_like(mass)
        for heads, weight in enumerate(binom.pmf(np.arange(count + 1), count, 0.5).tolist()):
            if weight < NEGLIGIBLE:
                continue
            shift = size * (2 * heads - count)
            if shift >= 0:
                spread[shift:] += weight * mass[: len(mass) - shift]
            else:
                spread[:shift] += weight * mass[-shift:]
        mass = spread
    sums = np.arange(-reach, reach + 1)
    return float(min(1.0, mass[np.abs(sums) >= abs(int(steps.sum()))].sum()))
