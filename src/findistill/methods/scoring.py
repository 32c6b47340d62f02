"""Score a model, and write what every scored run has: predictions, metrics and figures."""

import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd

from findistill.core.job import Job
from findistill.data import training_texts
from findistill.methods.rows import TestSets, optional_labels
from findistill.report.plots import save_run_figures
from findistill.stats.alignment import align_predictions, prediction_frame
from findistill.stats.cost import machine_cost
from findistill.stats.curves import reliability
from findistill.stats.majority import doubt
from findistill.stats.metrics import codes, evaluate

log = logging.getLogger(__name__)

REMEDIES = {  # what to try if a model does not beat the majority class
    "student": "Measure its training labels against human labels (stage=annotate), then use more texts or epochs",
    "teacher": "Label more texts, especially of the rare labels, or raise trainer.max_epochs",
    "qlora": "Label more texts, especially of the rare labels, or raise qlora.epochs",
    "fewshot": "Use a larger llm or demonstrations (shots.k), or train on the existing labels with stage=teacher",
    "evaluate": "Check that the texts and labels are like its training data, or train a model on them with stage=teacher",
}


def regression(scores: np.ndarray, predicted: np.ndarray, prefix: str) -> dict[str, float]:
    """Mean squared error and, unless all scores are equal, R2: 1 minus the error as a share of their variance."""
    mse, variance = float(((predicted - scores) ** 2).mean()), float(scores.var())
    return {f"{prefix}/mse": mse} | ({f"{prefix}/r2": 1 - mse / variance} if variance else {})


def score(job: Job, model: Path | str, tests: TestSets, history: Sequence[dict[str, float]] = ()) -> None:
    """Predict every test set once with `model`, and write `predictions*.parquet`, metrics and figures.

    Args:
        tests: rows and labels by metric prefix, from `rows.test_sets`.
        history: metrics by training epoch, for the learning curve; empty if nothing was trained.
    """
    runtime = import_module(f"findistill.inference.{'onnx_model' if Path(model).suffix == '.onnx' else 'predict'}")
    config = job.config
    for prefix, (rows, label_set) in tests.items():
        labels = label_set.names
        prediction = runtime.predict(model, rows["text"].tolist(), config.trainer, tokens_cache=job.tokens)
        probabilities, predicted = align_predictions(
            prediction.probabilities,
            prediction.predicted,
            prediction.labels,
            labels,
            model=str(model),
            label_map=config.evaluate.label_map,
        )
        frame = prediction_frame(rows, probabilities, predicted, labels)
        if prediction.scores is not None and "score" in rows:
            frame = frame.assign(score=rows["score"].to_numpy(), predicted_score=prediction.scores)
            job.metrics |= regression(frame["score"].to_numpy(), prediction.scores, prefix)
        record(job, prefix, frame, labels, history)
        job.metrics |= overlap(model, frame, prefix)
    if config.evaluate.latency:
        rows = next(iter(tests.values()))[0]
        job.metrics |= runtime.latency(model, rows["text"].tolist(), config.trainer)


def overlap(model: Path | str, frame: pd.DataFrame, prefix: str) -> dict[str, float]:
    """How many predicted rows are among the model's recorded training texts, and its accuracy on the others; empty if none."""
    mask = training_texts.known(model, frame["text"].tolist())
    if not mask.any():
        return {}
    others = (frame["label"] == frame["predicted"])[~mask]
    return {f"{prefix}/learnt_from": int(mask.sum())} | ({f"{prefix}/unseen_accuracy": others.mean()} if len(others) else {})


def record(job: Job, prefix: str, frame: pd.DataFrame, labels: tuple[str, ...], history: Sequence[dict[str, float]] = ()) -> None:
    """Write a test set's predictions and metrics, and the figures for the set `test`.

    Args:
        prefix: the test set's key in `rows.test_sets`.
        frame: from `prediction_frame`.
        labels: the test set's label names.
        history: metrics by training epoch, for the learning curve.
    """
    name = "predictions" if prefix == "test" else f"predictions_{prefix}"
    frame.to_parquet(job.folder / f"{name}.parquet", index=False)
    gold, probabilities = frame["label"].tolist(), frame[[f"p_{label}" for label in labels]].to_numpy()
    predicted = optional_labels(frame["predicted"])
    job.metrics |= evaluate(gold, probabilities, predicted, labels, prefix=prefix, resamples=job.config.evaluate.resamples)
    if prefix == "test":
        job.tracker.figures(save_run_figures(job.folder / "figures", history, gold, probabilities, predicted, labels))
        job.tracker.predictions(frame, labels, panels(job.metrics, labels, gold, probabilities, predicted))


def panels(
    metrics: Mapping[str, float], labels: Sequence[str], gold: Sequence[str], probabilities: np.ndarray,
    predicted: Sequence[str | None],
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Tables of the test scores for a tracker: `per_class`, one row per label; `reliability`, one row per non-empty bin."""
    names = ("precision", "recall", "f1", "support")
    rows = [{"label": label, **{name: metrics[f"test/{label}/{name}"] for name in names}} for label in labels]
    bins = reliability(codes(gold, labels, what="gold label"), probabilities, codes(predicted, labels, what="prediction"))
    columns = {"confidence": bins.confidence, "accuracy": bins.accuracy, "rows": bins.count}
    return {"per_class": pd.DataFrame(rows), "reliability": pd.DataFrame(columns)[bins.count > 0]}


def summary(job: Job) -> None:
    """Add the cost of predictions if the machine has a price; log the scores of each test set, and reasons to distrust them."""
    metrics = job.metrics
    metrics |= machine_cost(metrics, job.config.evaluate.usd_per_hour)
    sets = [name.removesuffix("/majority_share") for name in metrics if name.endswith("/majority_share")]
    for prefix in sorted(sets, key=lambda prefix: prefix != "test"):
        values = [metrics[f"{prefix}/{name}"] for name in ("accuracy", "accuracy_lo", "accuracy_hi", "macro_f1", "n")]
        on = f"{prefix}: " if len(sets) > 1 else ""
        log.info("%saccuracy %.3f [%.3f, %.3f]  macro F1 %.3f, %d rows", on, *values)
        overlaps = f"{prefix}/learnt_from" in metrics
        remedy = REMEDIES.get(job.step.name)
        if remedy and overlaps:
            remedy = "Set data.test=0.2, or the value used in its training, to score it on the test rows only"
        if reason := doubt(metrics, prefix) if overlaps or prefix == "test" else "":
            log.warning("%sunreliable: %s%s", on, reason, f". {remedy}" if remedy else "")
