"""Predictions in the terms of a test set: labels are matched by name, never by position."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from findistill.errors import UserError


def align_labels(model_labels: Sequence[str], labels: Sequence[str], *, model: str, complete: bool = False) -> np.ndarray:
    """The model's column of each label, (len(labels),) int64, matched by name whatever the case; -1 where it has none.

    Args:
        model: the name of the model, for the error.
        complete: whether the model must have every label.

    Raises:
        UserError: no label is one of the model's, or with `complete` one is missing.
    """
    columns = {name.lower(): column for column, name in enumerate(model_labels)}
    columns |= {name: column for column, name in enumerate(model_labels)}  # the exact name goes first
    positions = np.array([columns.get(label, columns.get(label.lower(), -1)) for label in labels], np.int64)
    if (positions < 0).all() or (complete and (positions < 0).any()):
        missing = "none is one of" if (positions < 0).all() else "missing are"
        absent = [label for label, column in zip(labels, positions, strict=True) if column < 0]
        raise UserError(
            f"the model {model} has the labels {', '.join(model_labels)}; {missing} {', '.join(absent)}.\n"
            "Labels are matched by name: rename them in id2label of the model's config.json"
        )
    return positions


def restrict_to_labels(probabilities: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Probabilities over other labels, renormalised: a three-label model has to choose on a two-label test set.

    Args:
        probabilities: (n, model labels).
        columns: (labels,) as `align_labels` returns them; a label that the model does not have gets zero.

    Returns:
        (n, labels); a row whose probability lies on other labels alone is uniform.
    """
    shares = np.where(columns >= 0, probabilities[:, columns], 0.0)
    total = shares.sum(axis=1, keepdims=True)
    return np.where(total > 0, shares / np.where(total > 0, total, 1), 1 / len(columns))


def align_predictions(
    probabilities: np.ndarray, predicted: Sequence[str | None], model_labels: Sequence[str], labels: Sequence[str], *, model: str
) -> tuple[np.ndarray, list[str | None]]:
    """Probabilities (n, len(labels)) and predicted labels in the terms of a test set.

    With the same labels, columns are reordered and predictions renamed. With other labels, the most probable label of
    the test set is predicted, and None where all probability lies on labels that the test set does not have.

    Args:
        probabilities: (n, len(model_labels)).
        predicted: n of `model_labels`, None without a prediction.

    Raises:
        UserError: no label is one of the model's.
    """
    columns = align_labels(model_labels, labels, model=model)
    if len(model_labels) == len(labels) and (columns >= 0).all():
        names = {model_labels[column]: label for label, column in zip(labels, columns, strict=True)}
        return probabilities[:, columns], [None if name is None else names[name] for name in predicted]
    answered = probabilities[:, columns[columns >= 0]].sum(axis=1) > 0
    shares = restrict_to_labels(probabilities, columns)
    return shares, [labels[best] if any_mass else None for best, any_mass in zip(shares.argmax(axis=1), answered, strict=True)]


def prediction_frame(
    rows: pd.DataFrame, probabilities: np.ndarray, predicted: Sequence[str | None], labels: Sequence[str]
) -> pd.DataFrame:
    """`id, text, label, predicted, p_<label>...`, one row a test text; probabilities (n, len(labels))."""
    columns = {f"p_{label}": probabilities[:, column] for column, label in enumerate(labels)}
    return rows[["id", "text", "label"]].reset_index(drop=True).assign(predicted=cast(Any, predicted), **columns)
