"""Classification metrics from the confusion table, with bootstrap intervals; values equal scikit-learn's.

Everything that a confusion table determines is computed from it, for one table or for thousands of resampled ones at
once. A row without a prediction (an unreadable LLM answer) is in an extra last column: it counts as wrong everywhere and
is reported as coverage.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from findistill.errors import UserError
from findistill.stats.curves import average_precisions, reliability

INTERVAL = (2.5, 97.5)  # percentiles: 95% bounds
RESAMPLED = ("accuracy", "macro_f1", "weighted_f1")  # the metrics with intervals
CELLS_AT_ONCE = 4_000_000  # resampled counts held in memory at a time (32 MB)


def codes(names: Sequence[str | None], labels: Sequence[str], *, what: str) -> np.ndarray:
    """Label names as positions in `labels`, (n,) int64; a missing name (None, NaN, NA) is -1.

    Raises:
        UserError: a name that is not among `labels`; `what` is its kind ("gold label", "prediction").
    """
    values = pd.Series(list(names), dtype=object)
    positions = pd.Index(list(labels), dtype=object).get_indexer(pd.Index(values))
    unknown = (positions < 0) & values.notna().to_numpy()
    if unknown.any():
        row = int(unknown.argmax())
        raise UserError(f"row {row}: {what} {values[row]!r} is not one of the labels {', '.join(labels)}.")
    return positions.astype(np.int64)


def confusion(gold: np.ndarray, predicted: np.ndarray, n_labels: int) -> np.ndarray:
    """Counts (n_labels, n_labels + 1): gold by predicted; the last column holds the rows without a prediction (-1)."""
    column = np.where(predicted < 0, n_labels, predicted)
    cells = np.bincount(gold * (n_labels + 1) + column, minlength=n_labels * (n_labels + 1))
    return cells.reshape(n_labels, n_labels + 1)


def scores(table: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of confusion tables (..., n_labels, n_labels + 1), each with the leading shape of `table`.

    Also `precision`, `recall`, `f1` and `support` with a last axis of n_labels. A ratio without a denominator (a label
    that is never predicted, or absent from gold) is 0. Macro averages run over the labels that occur, in gold or among the
    predictions: scikit-learn's `zero_division=0`, with its own choice of labels.
    """
    hits = np.diagonal(table[..., :-1], axis1=-2, axis2=-1).astype(float)
    support = table.sum(-1).astype(float)
    guesses = table[..., :-1].sum(-2).astype(float)
    rows = support.sum(-1)
    precision, recall = _ratio(hits, guesses), _ratio(hits, support)
    f1 = _ratio(2 * hits, guesses + support)
    share = _ratio(support, rows[..., None])
    n_occurring = (support + guesses > 0).sum(-1)
    return {
        "accuracy": _ratio(hits.sum(-1), rows),
        "macro_f1": _ratio(f1.sum(-1), n_occurring),
        "weighted_f1": (f1 * share).sum(-1),
        "macro_precision": _ratio(precision.sum(-1), n_occurring),
        "macro_recall": _ratio(recall.sum(-1), n_occurring),
        "weighted_precision": (precision * share).sum(-1),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "support": support,
    }


def resampled_confusions(gold: np.ndarray, predicted: np.ndarray, n_labels: int, *, resamples: int, seed: int) -> np.ndarray:
    """Confusion tables (m, resamples, n_labels, n_labels + 1) of m predictions (m, n), rows resampled with replacement.

    All m predictions see the same resampled rows. Rows that agree in gold and in every prediction are interchangeable, so
    one multinomial draw over the distinct patterns is the same as drawing n rows, and far cheaper.
    """
    patterns, counts = np.unique(np.vstack([gold[None], predicted]), axis=1, return_counts=True)
    rng = np.random.default_rng(seed)
    n_rows, width = int(counts.sum()), n_labels * (n_labels + 1)
    columns = np.where(patterns[1:] < 0, n_labels, patterns[1:])
    cells = np.eye(width)[patterns[0] * (n_labels + 1) + columns]  # (m, patterns, width)
    chunk = max(1, CELLS_AT_ONCE // len(counts))
    parts = []
    for start in range(0, resamples, chunk):
        resampled = rng.multinomial(n_rows, counts / n_rows, size=min(chunk, resamples - start))
        parts.append(resampled.astype(float) @ cells)
    return np.concatenate(parts, axis=1).reshape(len(predicted), resamples, n_labels, n_labels + 1)


def influences(gold: np.ndarray, predicted: np.ndarray, n_labels: int) -> dict[str, np.ndarray]:
    """The influence of each row on accuracy, macro F1 and weighted F1: (m, n) of m predictions (m, n), with mean 0 over the rows.

    The derivative of the metric by the row's weight (infinitesimal jackknife), times n: the covariance of these numbers over
    the rows, divided by n, is that of the metrics over samples of n rows, as a bootstrap would estimate it.
    """
    eye = np.eye(n_labels + 1)[:, :n_labels]
    truth = eye[gold]  # (n, labels)
    out: dict[str, list[np.ndarray]] = {key: [] for key in RESAMPLED}
    for one in predicted:
        guess = eye[np.where(one < 0, n_labels, one)]
        table = scores(confusion(gold, one, n_labels))
        total = table["support"] + guess.sum(0)
        by_label = len(gold) * _ratio(2 * truth * guess - table["f1"] * (truth + guess), total)
        share = table["support"] / len(gold)
        out["accuracy"].append((one == gold) - table["accuracy"])
        out["macro_f1"].append(by_label.sum(1) / (total > 0).sum())
        out["weighted_f1"].append(by_label @ share + truth @ table["f1"] - table["weighted_f1"])
    return {key: np.stack(rows) for key, rows in out.items()}


def reference(gold: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """`majority_share`: of the most frequent label of gold (n,); `labels_predicted`: distinct labels in predictions (..., n)."""
    return {
        "majority_share": float(np.bincount(gold).max() / len(gold)),
        "labels_predicted": float(len(np.unique(predicted[predicted >= 0]))),
    }


def bounds(samples: np.ndarray) -> tuple[float, float]:
    """95% percentile bounds of bootstrap samples (resamples,)."""
    low, high = np.percentile(samples, INTERVAL)
    return float(low), float(high)


def evaluate(
    gold: Sequence[str],
    probabilities: np.ndarray,
    predicted: Sequence[str | None],
    labels: Sequence[str],
    *,
    prefix: str = "test",
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """All metrics of one set of predictions, flat, every key under `prefix/`.

    `accuracy`, `macro_f1`, `weighted_f1`, `macro_precision`, `macro_recall`, `weighted_precision`; `<label>/precision`,
    `/recall`, `/f1`, `/support`, `/average_precision`; `majority_share`, `labels_predicted` (see `reference`);
    `micro_average_precision`; `ece`, the expected calibration error over 15 bins (see `curves.reliability`); `coverage`, the
    share of rows with a prediction; `n`, the number of rows.
    Accuracy, macro and weighted F1 and each label's F1 also have `_lo` and `_hi`: 95% percentile bootstrap over the rows.
    A label absent from gold has no average precision: that key is left out, as is `ece` if nothing was predicted.

    Args:
        gold: n label names.
        probabilities: (n, len(labels)), columns in the order of `labels`. Rows of NaN (no answer) rank last.
        predicted: n label names, None where there is none.

    Raises:
        UserError: a gold or predicted name that is not among `labels`, or no rows at all.
    """
    if not len(gold):
        raise UserError(f"{prefix}: no rows to evaluate. Check data.test and data.limit.")
    truth = codes(gold, labels, what="gold label")
    guess = codes(predicted, labels, what="prediction")
    if (truth < 0).any():
        raise UserError(f"{prefix}: row {int(np.argmax(truth < 0))} has no gold label. Evaluate labelled rows only.")
    if probabilities.shape != (len(truth), len(labels)) or len(guess) != len(truth):
        raise ValueError(f"shapes differ: {len(truth)} gold, {len(guess)} predicted, {probabilities.shape} probabilities")

    point = scores(confusion(truth, guess, len(labels)))
    resampled = scores(resampled_confusions(truth, guess[None], len(labels), resamples=resamples, seed=seed)[0])
    out: dict[str, float] = {}

    def put(key: str, value: Any, samples: np.ndarray | None = None) -> None:
        out[f"{prefix}/{key}"] = float(value)
        if samples is not None:
            out[f"{prefix}/{key}_lo"], out[f"{prefix}/{key}_hi"] = bounds(samples)

    for key in RESAMPLED:
        put(key, point[key], resampled[key])
    for key in ("macro_precision", "macro_recall", "weighted_precision"):
        put(key, point[key])
    precisions = average_precisions(truth, probabilities)
    for index, label in enumerate(labels):
        for key in ("precision", "recall", "support"):
            put(f"{label}/{key}", point[key][index])
        put(f"{label}/f1", point["f1"][index], resampled["f1"][:, index])
        if index in precisions:
            put(f"{label}/average_precision", precisions[index])
    put("micro_average_precision", precisions["micro"])
    calibration = reliability(truth, probabilities, guess)
    if calibration.count.any():
        put("ece", calibration.ece)
    put("coverage", (guess >= 0).mean())
    for key, value in reference(truth, guess).items():
        put(key, value)
    put("n", len(truth))
    return out


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=bottom > 0)
