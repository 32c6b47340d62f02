"""Precision, recall and F1 of spans, exact and by overlap, with intervals over texts, and over seeds and texts.

Everything is computed from counts per text (`data.span_counts`): texts are resampled, with all their spans. Averages are micro:
over all spans of all texts. By overlap, a predicted span is right, and a gold one recovered, if it shares a character with one
of the same label; F1 is the harmonic mean of precision and recall.
"""

from collections.abc import Sequence

import numpy as np

from findistill.data.span_counts import COUNTED, counts
from findistill.data.spans import Span
from findistill.errors import UserError
from findistill.stats.intervals import Estimate, estimate_of
from findistill.stats.metrics import bounds
from findistill.stats.significance import Paired, difference_of

METRICS = ("f1", "precision", "recall", "overlap_f1", "overlap_precision", "overlap_recall")
PREDICTED, GOLD, SAME, PREDICTED_OVERLAPS, GOLD_OVERLAPS = range(len(COUNTED))
CELLS_AT_ONCE = 4_000_000  # resampled weights held in memory at a time (32 MB)


def scores(table: np.ndarray) -> dict[str, np.ndarray]:
    """`METRICS` of counts (..., len(COUNTED)), each with the leading shape; 0 if nothing is predicted or gold."""
    table = table.astype(float)
    precision = _ratio(table[..., PREDICTED_OVERLAPS], table[..., PREDICTED])
    recall = _ratio(table[..., GOLD_OVERLAPS], table[..., GOLD])
    return {
        "f1": _ratio(2 * table[..., SAME], table[..., PREDICTED] + table[..., GOLD]),
        "precision": _ratio(table[..., SAME], table[..., PREDICTED]),
        "recall": _ratio(table[..., SAME], table[..., GOLD]),
        "overlap_f1": _ratio(2 * precision * recall, precision + recall),
        "overlap_precision": precision,
        "overlap_recall": recall,
    }


def influences(table: np.ndarray) -> dict[str, np.ndarray]:
    """The influence of each text on a metric, (m, n) from counts (m, n, len(COUNTED)): see `metrics.influences`."""
    table = table.astype(float)
    n, whole = table.shape[1], {name: value[:, None] for name, value in scores(table.sum(1)).items()}

    def of(name: str, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        return n * _ratio(top - whole[name] * bottom, bottom.sum(1, keepdims=True))

    predicted, gold, same = (table[..., column] for column in (PREDICTED, GOLD, SAME))
    out = {
        "f1": of("f1", 2 * same, predicted + gold),
        "precision": of("precision", same, predicted),
        "recall": of("recall", same, gold),
        "overlap_precision": of("overlap_precision", table[..., PREDICTED_OVERLAPS], predicted),
        "overlap_recall": of("overlap_recall", table[..., GOLD_OVERLAPS], gold),
    }
    precision, recall = whole["overlap_precision"], whole["overlap_recall"]
    slope = 2 * (recall**2 * out["overlap_precision"] + precision**2 * out["overlap_recall"])
    return out | {"overlap_f1": _ratio(slope, (precision + recall) ** 2)}


def resampled(table: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """Summed counts (m, resamples, ...) of m predictions (m, n, ...), texts drawn with replacement, the same for all m."""
    n = table.shape[1]
    flat = table.reshape(len(table), n, -1).transpose(1, 0, 2).reshape(n, -1)
    patterns, number = np.unique(flat, axis=0, return_counts=True)  # texts of equal counts are interchangeable
    rng, parts = np.random.default_rng(seed), []
    chunk = max(1, CELLS_AT_ONCE // len(number))
    for start in range(0, resamples, chunk):
        weights = rng.multinomial(n, number / n, size=min(chunk, resamples - start))
        parts.append(weights.astype(float) @ patterns.astype(float))
    summed = np.concatenate(parts).reshape(resamples, len(table), *table.shape[2:])
    return np.moveaxis(summed, 0, 1)


def evaluate(
    gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]], labels: Sequence[str],
    *, prefix: str = "test", resamples: int = 1000, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """All metrics of one set of predictions, flat, every key under `prefix/`.

    `METRICS` as micro averages and, if there are several labels, of each label (`<label>/f1` and so on) with its `spans`; each
    metric with `_lo` and `_hi`, 95% percentile bootstrap over the texts. `macro_f1`, exact, over the labels; `texts_right`, the
    share of texts whose spans are all right; `n`, the number of texts; `spans` and `spans_predicted`.

    Raises:
        UserError: there are no texts.
    """
    if not len(gold):
        raise UserError(f"{prefix}: no texts to evaluate. Check data.test and data.limit.")
    table = counts(gold, predicted, labels)
    draws = resampled(table[None], resamples=resamples, seed=seed)[0]
    out: dict[str, float] = {}

    def put(name: str, own: np.ndarray, samples: np.ndarray) -> None:
        spread = scores(samples)
        for key, value in scores(own).items():
            low, high = bounds(spread[key])
            out.update({f"{prefix}/{name}{key}": float(value), f"{prefix}/{name}{key}_lo": low, f"{prefix}/{name}{key}_hi": high})

    put("", table.sum((0, 1)), draws.sum(1))
    if len(labels) > 1:
        for column, label in enumerate(labels):
            put(f"{label}/", table[:, column].sum(0), draws[:, column])
            out[f"{prefix}/{label}/spans"] = float(table[:, column, GOLD].sum())
    whole = table.sum(0)
    right = (table[..., SAME] == table[..., GOLD]) & (table[..., SAME] == table[..., PREDICTED])
    counted = {"n": len(gold), "spans": whole[:, GOLD].sum(), "spans_predicted": whole[:, PREDICTED].sum()}
    further = {"macro_f1": scores(whole)["f1"].mean(), "texts_right": right.all(1).mean(), **counted}
    return out | {f"{prefix}/{key}": float(value) for key, value in further.items()}


def seed_means(table: np.ndarray, *, units: Sequence[object] = (), resamples: int = 2000, seed: int = 0) -> dict[str, Estimate]:
    """`METRICS` of counts (seeds, n, len(COUNTED)): mean over seeds, with 95% bounds over seeds and texts; for one seed, over
    texts (percentile bootstrap). `units` as in `intervals.by_unit`."""
    points, influence = scores(table.sum(1)), influences(table)
    draws = scores(resampled(table, resamples=resamples, seed=seed)[0]) if len(table) == 1 else {}
    return {key: estimate_of(points[key], influence[key], draws.get(key), units) for key in METRICS}


def paired(
    a: np.ndarray, b: np.ndarray,
    *, metric: str = "f1", seeds_a: Sequence[object] = (), seeds_b: Sequence[object] = (), resamples: int = 2000, seed: int = 0,
) -> Paired:  # fmt: skip
    """Metric of method a minus that of b, from counts (seeds, n, len(COUNTED)) on the same n texts; see `significance.paired`.

    With one run each, p is twice the share of bootstrap differences on the rarer side of 0.
    """
    points = [scores(table.sum(1))[metric] for table in (a, b)]
    if len(a) == len(b) == 1:
        draws = scores(resampled(np.concatenate([a, b]), resamples=resamples, seed=seed))[metric]
        gaps = draws[0] - draws[1]
        beyond = min(float((gaps <= 0).mean()), float((gaps >= 0).mean()))
        return Paired(float(points[0][0] - points[1][0]), *bounds(gaps), min(1.0, 2 * max(beyond, 1 / resamples)), "rows")
    groups = [(own, influences(table)[metric]) for own, table in zip(points, (a, b), strict=True)]
    return difference_of(*groups, seeds_a=seeds_a, seeds_b=seeds_b)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    top, bottom = np.broadcast_arrays(top, bottom)
    return np.divide(top, bottom, out=np.zeros(bottom.shape), where=bottom != 0)
