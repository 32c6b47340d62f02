"""Paired tests between methods on the same test rows, and Holm's adjustment of their p-values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from findistill.stats.intervals import Group, by_unit, standard_error
from findistill.stats.metrics import bounds, confusion, influences, resampled_confusions, scores

METRICS = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class Paired:
    """Two methods on the same rows: the difference a - b of a metric, its 95% bounds and two-sided p.

    `over` says what the bounds and p generalise to: other `seeds and rows` of these methods, or other `rows` for these
    particular models (one run each; their macro F1 has no p).
    """

    difference: float
    low: float
    high: float
    p: float | None
    over: str


def paired(
    gold: np.ndarray, a: np.ndarray, b: np.ndarray, n_labels: int,
    *, seeds_a: Sequence[object] = (), seeds_b: Sequence[object] = (), resamples: int = 2000, seed: int = 0,
) -> dict[str, Paired]:  # fmt: skip
    """Differences of accuracy and macro F1 between methods a (seeds_a, n) and b (seeds_b, n) on the same n rows.

    If a method has several runs, the bounds and p are over seeds and rows (`intervals.standard_error`). Runs with the same seeds
    are paired by seed, as a seed may draw the same rows, order and initial weights for both; other runs are independent, as in
    Welch's test. Equal seeds within a method are one unit (`intervals.by_unit`). A method of one run is taken as fixed.

    With one run each, p is McNemar's exact test on the rows where only one is right, and the bounds are from a paired bootstrap
    with `resamples` draws of the rows.
    """
    tables = [scores(np.stack([confusion(gold, one, n_labels) for one in runs])) for runs in (a, b)]
    gaps = {key: float(tables[0][key].mean() - tables[1][key].mean()) for key in METRICS}
    if len(a) == len(b) == 1:
        return _of_models(gold, a, b, n_labels, gaps, resamples, seed)
    influence = [influences(gold, runs, n_labels) for runs in (a, b)]
    groups = {key: [(own[key], rows[key]) for own, rows in zip(tables, influence, strict=True)] for key in METRICS}
    return {key: difference_of(*pair, seeds_a=seeds_a, seeds_b=seeds_b) for key, pair in groups.items()}


def difference_of(a: Group, b: Group, *, seeds_a: Sequence[object], seeds_b: Sequence[object]) -> Paired:
    """Mean score of method a minus that of b on the same rows, where one or both have several runs; see `paired`."""
    same_seeds = bool(seeds_a) and set(seeds_a) == set(seeds_b)
    a, b = by_unit(a, seeds_a), by_unit(b, seeds_b)
    gap = float(a[0].mean() - b[0].mean())
    error = standard_error((a[0] - b[0], a[1] - b[1])) if same_seeds else standard_error(a, (-b[0], -b[1]))
    return Paired(gap, gap - error.half_width, gap + error.half_width, error.p(gap), "seeds and rows")


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p-values, in the given order."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _of_models(
    gold: np.ndarray, a: np.ndarray, b: np.ndarray, n_labels: int, gaps: dict[str, float], resamples: int, seed: int
) -> dict[str, Paired]:
    """For one model each: over rows only."""
    only_a, only_b = (int(np.sum(one & ~other)) for one, other in [(a == gold, b == gold), (b == gold, a == gold)])
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    resampled = scores(resampled_confusions(gold, np.vstack([a, b]), n_labels, resamples=resamples, seed=seed))
    return {
        key: Paired(gap, *bounds(resampled[key][0] - resampled[key][1]), p if key == "accuracy" else None, "rows")
        for key, gap in gaps.items()
    }
