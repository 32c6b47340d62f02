"""Confidence intervals of methods over seeds and rows, and of single models over rows.

A method's score varies with the test rows and with its seed. Seeds and rows are crossed: every run is scored on the same rows.
The variance of a mean over seeds has three components: the rows that all runs share, the effect of a seed on all rows, and its
interaction with single rows. The last two make up the variance of the runs' scores, of which a mean over S runs has 1/S; the
shared component is the covariance, over rows, of different runs. Their sum is used with Student's t and Satterthwaite's degrees
of freedom. A percentile bootstrap over seeds and rows counts the interaction twice, underestimates the variance of five seeds
by a fifth and does not use t: equal methods of five seeds differ with p < 0.05 in less than 1% of studies if seeds do not
matter, and in 10 to 19% if they move accuracy by 0.03.

The influence of a row on a metric is a derivative (`metrics.influences`), so several seeds need no resampling.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from findistill.stats.metrics import RESAMPLED, bounds, confusion, influences, resampled_confusions, scores

Group = tuple[np.ndarray, np.ndarray]  # the score of each run (runs,), and the influence of each row on it (runs, n)


@dataclass(frozen=True)
class Estimate:
    """A metric's mean over seeds, its standard deviation over seeds (None for one seed) and 95% bounds.

    The bounds of several seeds are over seeds and rows; those of one seed over rows, for this particular model.
    """

    mean: float
    sd: float | None
    low: float
    high: float
    per_seed: tuple[float, ...]


@dataclass(frozen=True)
class StandardError:
    """The standard error of a score or a difference of scores, with its degrees of freedom `df`."""

    value: float
    df: float

    @property
    def half_width(self) -> float:
        """Half the width of the 95% interval."""
        return float(t.ppf(0.975, self.df)) * self.value

    def p(self, difference: float) -> float:
        """Two-sided p-value of a difference from 0."""
        if not self.value:
            return float(difference == 0)
        return float(2 * t.sf(abs(difference) / self.value, self.df))


def standard_error(*groups: Group) -> StandardError:
    """The standard error, over seeds and rows, of the sum of the groups' means over their runs.

    Runs of different groups are independent; all share the rows. A group of one run is taken as fixed: its variance over
    seeds cannot be estimated.
    """
    n_rows = groups[0][1].shape[1]
    over_rows = float(np.var(sum(influence.mean(0) for _, influence in groups), ddof=1)) / n_rows if n_rows > 1 else 0.0
    repeated = [(values, influence, len(values)) for values, influence in groups if len(values) > 1]
    redrawn = [float(influence.var(axis=0, ddof=1).mean()) / n_rows / runs for _, influence, runs in repeated]
    of_seeds = [float(values.var(ddof=1)) / runs for values, _, runs in repeated]
    shared = max(0.0, over_rows - sum(redrawn))
    variance = shared + sum(of_seeds)
    # The shared component is no more certain than the interaction subtracted from it, however small it comes out.
    doubt = shared**2 + sum(part**2 * runs / (runs - 1) for part, (_, _, runs) in zip(redrawn, repeated, strict=True))
    doubt = doubt / max(1, n_rows - 1) + sum(part**2 / (runs - 1) for part, (_, _, runs) in zip(of_seeds, repeated, strict=True))
    return StandardError(variance**0.5, max(1.0, variance**2 / doubt) if doubt else max(1.0, n_rows - 1))


def by_unit(group: Group, units: Sequence[object]) -> Group:
    """The group with runs of one unit averaged, in the units' order; no units: each run is one.

    Units are independent of each other, and the runs within one are not: several seeds on one draw of labelled rows.
    """
    members = sorted(set(units), key=lambda unit: (len(str(unit)), str(unit)))
    if members == list(units):
        return group
    runs = [[run for run, unit in enumerate(units) if unit == member] for member in members]
    values, influence = group
    return np.stack([values[own].mean() for own in runs]), np.stack([influence[own].mean(0) for own in runs])


def seed_means(
    gold: np.ndarray, predicted: np.ndarray, n_labels: int,
    *, units: Sequence[object] = (), resamples: int = 2000, seed: int = 0,
) -> dict[str, Estimate]:  # fmt: skip
    """Accuracy, macro F1 and weighted F1 of predictions (seeds, n): mean over seeds, with 95% bounds over seeds and rows.

    One seed gets a percentile bootstrap over `resamples` draws of the rows.

    Args:
        units: what is independent, if not each run is; see `by_unit`.
    """
    points = scores(np.stack([confusion(gold, one, n_labels) for one in predicted]))
    influence = influences(gold, predicted, n_labels)
    draws = {}
    if len(predicted) == 1:
        draws = scores(resampled_confusions(gold, predicted, n_labels, resamples=resamples, seed=seed)[0])
    return {key: estimate_of(points[key], influence[key], draws.get(key), units) for key in RESAMPLED}


def estimate_of(
    values: np.ndarray, influence: np.ndarray, draws: np.ndarray | None = None, units: Sequence[object] = ()
) -> Estimate:
    """The estimate of a metric between 0 and 1.

    Args:
        values: (seeds,).
        influence: of each row on them, (seeds, n).
        draws: for one seed, the bootstrap samples over rows.
        units: as in `by_unit`.
    """
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    low, high = _interval(*by_unit((values, influence), units)) if draws is None else bounds(draws)
    return Estimate(float(values.mean()), spread, low, high, tuple(map(float, values)))


def _interval(values: np.ndarray, influence: np.ndarray) -> tuple[float, float]:
    """95% bounds of a metric between 0 and 1 over seeds and rows."""
    mean, half = float(values.mean()), standard_error((values, influence)).half_width
    return max(0.0, mean - half), min(1.0, mean + half)


def accuracy_share(correct_a: np.ndarray, correct_b: np.ndarray) -> tuple[float, float, float]:
    """Accuracy of method a, (seeds_a, n) bool, as a share of method b's, (seeds_b, n), with 95% bounds over seeds and rows."""
    a, b = (correct.mean(1) for correct in (correct_a, correct_b))
    whole = max(float(b.mean()), 1 / correct_b.shape[1])
    share = float(a.mean()) / whole
    # The derivatives of a / b.
    terms = [(a / whole, (correct_a - a[:, None]) / whole), (-share * b / whole, -share * (correct_b - b[:, None]) / whole)]
    half = standard_error(*terms).half_width
    return share, max(0.0, share - half), share + half
