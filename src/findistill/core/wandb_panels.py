"""Tables and charts of test predictions in W&B's native formats."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import wandb


def predictions(rows: pd.DataFrame, frame: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """A table of `rows`, and the confusion matrix and precision-recall curves of all rows in `frame`."""
    panels: dict[str, Any] = {"test/predictions": wandb.Table(dataframe=rows)}
    answered = frame[frame["predicted"].notna()]
    if len(answered):
        gold = [labels.index(label) for label in answered["label"]]
        predicted = [labels.index(label) for label in answered["predicted"]]
        panels["test/confusion"] = wandb.plot.confusion_matrix(y_true=gold, preds=predicted, class_names=list(labels))
        probabilities = answered[[f"p_{label}" for label in labels]]
        if probabilities.notna().all(axis=None):
            panels["test/precision_recall"] = wandb.plot.pr_curve(gold, probabilities.to_numpy(), labels=list(labels))
    return panels


def scores(frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Scores by class as a table and an F1 bar chart; a reliability diagram. See `Tracker.predictions`."""
    panels: dict[str, Any] = {}
    if (per_class := frames.get("per_class")) is not None and len(per_class):
        panels |= _by_label("test/per_class", per_class, "F1 by class")
    if (bins := frames.get("reliability")) is not None and len(bins):
        panels["test/reliability_bins"] = wandb.Table(dataframe=bins)
        panels["test/reliability"] = wandb.plot.line_series(
            xs=[bins["confidence"].tolist(), [0.0, 1.0]], ys=[bins["accuracy"].tolist(), [0.0, 1.0]],
            keys=["model", "calibrated"], title="Reliability", xname="confidence",
        )  # fmt: skip
    return panels


def per_label(frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Scores by entity type, a table and an F1 bar chart for each split. See `Tracker.per_label`."""
    panels: dict[str, Any] = {}
    for split, frame in frames.items():
        panels |= _by_label(f"{split}/per_label", frame, f"F1 by type of entity, {split}")
    return panels


def _by_label(name: str, frame: pd.DataFrame, title: str) -> dict[str, Any]:
    """The scores as a table, `name`, and F1 as a bar chart, `name_f1`."""
    bars = wandb.plot.bar(wandb.Table(dataframe=frame), "label", "f1", title=title)
    return {name: wandb.Table(dataframe=frame), f"{name}_f1": bars}
