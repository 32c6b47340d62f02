"""Whether a score is meaningful: the model was not trained on test rows, and beats always predicting their majority label."""

from collections.abc import Mapping

import numpy as np

from findistill.stats.intervals import Estimate
from findistill.stats.metrics import reference


def doubt(metrics: Mapping[str, float], prefix: str = "test") -> str:
    """One sentence, without its full stop, about a model that was trained on test rows, predicts only one label or is not clearly
    above the majority; else empty."""
    names = ("accuracy", "accuracy_lo", "accuracy_hi", "majority_share", "labels_predicted", "n")
    if not all(f"{prefix}/{name}" in metrics for name in names):
        return ""
    accuracy, low, high, majority, n_labels, n = (metrics[f"{prefix}/{name}"] for name in names)
    parts = []
    if overlap := metrics.get(f"{prefix}/learnt_from"):
        others = metrics.get(f"{prefix}/unseen_accuracy")
        aside = "" if others is None else f", and its accuracy on the other {n - overlap:,.0f} is {others:.3f}"
        parts.append(f"it was trained on {overlap:,.0f} of the {n:,.0f} test texts{aside}")
    if n_labels < 2 and majority < 1:
        parts.append("it predicts the same label for every text" if n_labels else "it predicts no label for any text")
    if low <= majority < 1:
        place = "below" if high < majority else "not above" if accuracy <= majority else "not clearly above"
        parts.append(
            f"accuracy {accuracy:.3f} [{low:.3f}, {high:.3f}] is {place} {majority:.3f}, that of always predicting the most "
            f"frequent label of the {n:,.0f} test rows"
        )
    return "; ".join(parts)


def doubt_of(
    estimates: Mapping[str, Estimate], gold: np.ndarray, predicted: np.ndarray, known: Mapping[str, float | None]
) -> str:
    """`doubt` of a method of several seeds: predictions (seeds, n).

    Args:
        known: `learnt_from` and `unseen_accuracy` of the test rows, None if there are no such rows.
    """
    one = estimates["accuracy"]
    numbers = {"accuracy": one.mean, "accuracy_lo": one.low, "accuracy_hi": one.high, "n": len(gold)}
    numbers |= reference(gold, predicted) | {name: value for name, value in known.items() if value is not None}
    return doubt({f"test/{name}": value for name, value in numbers.items()})
