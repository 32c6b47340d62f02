"""Paired tests between methods on the same test rows, and Holm's adjustment of their p-values."""

from dataclasses import dataclass
from math import lcm

import numpy as np
from scipy.stats import binom

from findistill.errors import UserError
from findistill.stats.metrics import bounds, confusion, resampled_confusions, scores


@dataclass(frozen=True)
class Paired:
    """Two methods on the same rows: the difference a - b of a metric, 95% paired bootstrap bounds, two-sided p."""

    difference: float
    low: float
    high: float
    p: float | None


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
        UserError: `ids_a` and `ids_b` are both set and are not the same rows in the same order.
    """
    if ids_a is not None and ids_b is not None and not np.array_equal(ids_a, ids_b):
        raise UserError("the two methods were tested on different rows: a paired test needs the same ids in one order.")
    unit = lcm(len(correct_a), len(correct_b))
    steps = correct_a.sum(0) * (unit // len(correct_a)) - correct_b.sum(0) * (unit // len(correct_b))
    values, counts = np.unique(steps, return_counts=True)
    n_rows = len(steps)
    resampled = np.random.default_rng(seed).multinomial(n_rows, counts / n_rows, size=resamples) @ values
    low, high = bounds(resampled / (n_rows * unit))
    return Paired(float(steps.sum() / (n_rows * unit)), low, high, _sign_flip(steps))


def paired_macro_f1(
    gold: np.ndarray, a: np.ndarray, b: np.ndarray, n_labels: int, *, resamples: int = 2000, seed: int = 0
) -> Paired:
    """Difference of mean macro F1 between predictions a (seeds_a, n) and b (seeds_b, n); bounds only, no p-value."""
    both = np.vstack([a, b])
    points = scores(np.stack([confusion(gold, one, n_labels) for one in both]))["macro_f1"]
    resampled = scores(resampled_confusions(gold, both, n_labels, resamples=resamples, seed=seed))["macro_f1"]
    low, high = bounds(resampled[: len(a)].mean(0) - resampled[len(a) :].mean(0))
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

    The rows of one magnitude m sum to m * (2 * heads - count) with heads of Binomial(count, 1/2): the magnitudes'
    distributions over m * heads are convolved.
    """
    sizes, counts = np.unique(np.abs(steps[steps != 0]), return_counts=True)
    mass = np.ones(1)  # of 0, 1, 2, ... steps up
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        ways = np.zeros(size * count + 1)
        ways[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        mass = np.convolve(mass, ways)
    sums = 2 * np.arange(len(mass)) - (len(mass) - 1)
    return float(min(1.0, mass[np.abs(sums) >= abs(int(steps.sum()))].sum()))
