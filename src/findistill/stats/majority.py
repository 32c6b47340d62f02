"""Whether a score says anything: the model knows none of the test rows, and beats always answering their most frequent label."""

from collections.abc import Mapping

import numpy as np

from findistill.stats.intervals import Estimate
from findistill.stats.metrics import reference


def doubt(metrics: Mapping[str, float], prefix: str = "test") -> str:
    """One sentence, without its full stop, on a model that learnt from test rows, gives one label only or is not above the
    majority; else empty."""
    names = ("accuracy", "accuracy_lo", "accuracy_hi", "majority_share", "labels_predicted", "n")
    if not all(f"{prefix}/{name}" in metrics for name in names):
        return ""
    accuracy, low, high, majority, n_labels, n = (metrics[f"{prefix}/{name}"] for name in names)
    parts = []
    if overlap := metrics.get(f"{prefix}/learnt_from"):
        others = metrics.get(f"{prefix}/unseen_accuracy")
        aside = "" if others is None else f", and on the other {n - overlap:,.0f} its accuracy is {others:.3f}"
        parts.append(f"it learnt from {overlap:,.0f} of the {n:,.0f} test texts{aside}")
    if n_labels < 2 and majority < 1:
        parts.append("it gives every text the same label" if n_labels else "it gives no text a label")
    if low <= majority < 1:
        place = "below" if high < majority else "not above" if accuracy <= majority else "not clearly above"
        parts.append(
            f"accuracy {accuracy:.3f} [{low:.3f}, {high:.3f}] is {place} {majority:.3f}, what always answering the most frequent "
            f"label of the {n:,.0f} test rows gives"
        )
    return "; ".join(parts)


def doubt_of(
    estimates: Mapping[str, Estimate], gold: np.ndarray, predicted: np.ndarray, known: Mapping[str, float | None]
) -> str:
    """`doubt` of a method of several seeds: predictions (seeds, n).

    Args:
        known: `learnt_from` and `unseen_accuracy` of the test rows, None where there are no such.
    """
    one = estimates["accuracy"]
    numbers = {"accuracy": one.mean, "accuracy_lo": one.low, "accuracy_hi": one.high, "n": len(gold)}
    numbers |= reference(gold, predicted) | {name: value for name, value in known.items() if value is not None}
    return doubt({f"test/{name}": value for name, value in numbers.items()})
