"""Whether a classifier is worth more than always answering the most frequent label of its test rows."""

from collections.abc import Mapping

import numpy as np

from findistill.stats.intervals import Estimate
from findistill.stats.metrics import reference


def doubt(metrics: Mapping[str, float], prefix: str = "test") -> str:
    """One sentence, without its full stop, on a model that gives one label only or is not above the majority; else empty."""
    names = ("accuracy", "accuracy_lo", "accuracy_hi", "majority_share", "labels_predicted", "n")
    if not all(f"{prefix}/{name}" in metrics for name in names):
        return ""
    accuracy, low, high, majority, given, n = (metrics[f"{prefix}/{name}"] for name in names)
    parts = []
    if given < 2 and majority < 1:
        parts.append("it gives every text the same label" if given else "it gives no text a label")
    if low <= majority < 1:
        place = "below" if high < majority else "not above" if accuracy <= majority else "not clearly above"
        parts.append(
            f"accuracy {accuracy:.3f} [{low:.3f}, {high:.3f}] is {place} {majority:.3f}, what always answering the most frequent "
            f"label of the {n:,.0f} test rows gives"
        )
    return "; ".join(parts)


def doubt_of(estimates: Mapping[str, Estimate], gold: np.ndarray, predicted: np.ndarray) -> str:
    """`doubt` of a method of several seeds: predictions (seeds, n)."""
    one = estimates["accuracy"]
    numbers = {"accuracy": one.mean, "accuracy_lo": one.low, "accuracy_hi": one.high, "n": len(gold)}
    return doubt({f"test/{name}": value for name, value in (numbers | reference(gold, predicted)).items()})
