"""Predictions mapped to a test set's labels, by name and never by position."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from findistill.models.label_names import add_up, match_labels


def align_predictions(
    probabilities: np.ndarray, predicted: Sequence[str | None], model_labels: Sequence[str], labels: Sequence[str],
    *, model: str, label_map: Any = None, setting: str = "evaluate.label_map",
) -> tuple[np.ndarray, list[str | None]]:  # fmt: skip
    """Probabilities (n, len(labels)) and predictions, mapped to a test set's labels.

    With one output per label, columns are reordered and predictions renamed. Otherwise the outputs of a label are summed, those
    without a label dropped, and the rest renormalised; the most probable label is predicted, or None if all probability is on
    dropped outputs.

    Args:
        probabilities: (n, len(model_labels)).
        predicted: n of `model_labels`, None without a prediction.
        model, label_map, setting: as for `match_labels`.

    Raises:
        UserError: the labels do not match, see `match_labels`.
    """
    columns = match_labels(model_labels, labels, model=model, label_map=label_map, setting=setting)
    aligned = add_up(probabilities, columns, len(labels))
    if (columns >= 0).all() and len(set(columns)) == len(columns):
        names = {name: labels[column] for name, column in zip(model_labels, columns, strict=True)}
        return aligned, [None if name is None else names[name] for name in predicted]
    total = aligned.sum(axis=1, keepdims=True)
    answered = total[:, 0] > 0
    # A row with all its probability on dropped outputs is uniform.
    shares = np.where(total > 0, aligned / np.where(total > 0, total, 1), 1 / len(labels))
    return shares, [labels[best] if any_mass else None for best, any_mass in zip(shares.argmax(axis=1), answered, strict=True)]


def prediction_frame(
    rows: pd.DataFrame, probabilities: np.ndarray, predicted: Sequence[str | None], labels: Sequence[str]
) -> pd.DataFrame:
    """`id, text, label, predicted, p_<label>...`, one row per test text; probabilities (n, len(labels))."""
    columns = {f"p_{label}": probabilities[:, column] for column, label in enumerate(labels)}
    return rows[["id", "text", "label"]].reset_index(drop=True).assign(predicted=cast(Any, predicted), **columns)
