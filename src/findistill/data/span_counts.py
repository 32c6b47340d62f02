"""Counts of how predicted spans agree with gold ones, from which precision, recall and F1 follow."""

from collections.abc import Sequence

import numpy as np

from findistill.data.spans import Span

# Predicted spans, gold spans, spans in both, predicted spans that overlap a gold one, gold spans that overlap a predicted one.
COUNTED = ("predicted", "gold", "same", "predicted_overlaps", "gold_overlaps")


def counts(gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]], labels: Sequence[str]) -> np.ndarray:
    """(texts, labels, len(COUNTED)) int64; spans are compared within a label."""
    table = np.zeros((len(gold), len(labels), len(COUNTED)), np.int64)
    for row, (ours, theirs) in enumerate(zip(gold, predicted, strict=True)):
        for column, label in enumerate(labels):
            true, guessed = ({span for span in spans if span.label == label} for spans in (ours, theirs))
            table[row, column] = (
                len(guessed),
                len(true),
                len(true & guessed),
                sum(any(one.overlaps(other) for other in true) for one in guessed),
                sum(any(one.overlaps(other) for other in guessed) for one in true),
            )
    return table


def f1(table: np.ndarray) -> np.ndarray:
    """Exact-match F1 of counts (..., len(COUNTED)); 0 where nothing is gold or predicted."""
    both = table[..., 0] + table[..., 1]
    return np.divide(2 * table[..., 2], both, out=np.zeros(np.shape(both)), where=both > 0)


def validation_scores(
    gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]], labels: Sequence[str]
) -> dict[str, float]:
    """Scores to choose epochs and thresholds by: `val/f1`, exact match; its mean over labels, `val/macro_f1`; `val/accuracy`,
    the share of texts whose spans are all right. Also `val/precision`, `val/recall` and `val/spans`, the number of gold spans;
    and these of each label, `val/<label>/f1` and so on, if there are several."""
    table = counts(gold, predicted, labels)
    right = (table[..., 0] == table[..., 2]) & (table[..., 1] == table[..., 2])
    whole = table.sum(0)
    own = {f"{label}/": row for label, row in zip(labels, whole, strict=True)} if len(labels) > 1 else {}
    return {
        **{f"val/{of}{name}": value for of, row in {"": whole.sum(0), **own}.items() for name, value in _exact(row).items()},
        "val/macro_f1": float(f1(whole).mean()),
        "val/accuracy": float(right.all(1).mean()),
    }


def _exact(row: np.ndarray) -> dict[str, float]:
    """Exact-match scores of summed counts (len(COUNTED),); 0 where nothing is gold or predicted."""
    predicted, gold, same = row[:3].tolist()
    shares = {"precision": same / predicted if predicted else 0.0, "recall": same / gold if gold else 0.0}
    return {"f1": float(f1(row)), **shares, "spans": float(gold)}
