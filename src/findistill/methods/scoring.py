"""From a trained model to the files every scored run leaves: predictions, metrics, figures, model card."""

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

REMEDIES = {  # what to do next about a model that is not above the majority class
    "student": "Measure the labels that it learnt from on texts labelled by hand (stage=annotate); then more texts or epochs",
    "teacher": "Label more texts, of the rare labels above all, or raise trainer.max_epochs",
    "qlora": "Label more texts, of the rare labels above all, or raise qlora.epochs",
    "fewshot": "Use a larger llm, or demonstrations (shots.k); stage=teacher trains on the labels that there are",
    "evaluate": "Check that the texts and labels are of the kind that it was trained on; stage=teacher trains a model on them",
}


def regression(scores: np.ndarray, predicted: np.ndarray, prefix: str) -> dict[str, float]:
    """Mean squared error and, where the scores differ, R2: 1 less the share of their variance that is left."""
    mse, variance = float(((predicted - scores) ** 2).mean()), float(scores.var())
    return {f"{prefix}/mse": mse} | ({f"{prefix}/r2": 1 - mse / variance} if variance else {})


def score(job: Job, model: Path | str, tests: TestSets, history: Sequence[dict[str, float]] = ()) -> None:
    """Predict every test set once with `model`, and leave `predictions*.parquet`, metrics and figures.

    Args:
        tests: rows and labels by metric prefix, as `rows.test_sets` gives them.
        history: the training's epochs for the learning curve; none where nothing was trained.
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
    """How many of the predicted rows a model's folder says it learnt from, and its accuracy on the others; nothing where none."""
    mask = training_texts.known(model, frame["text"].tolist())
    if not mask.any():
        return {}
    others = (frame["label"] == frame["predicted"])[~mask]
    return {f"{prefix}/learnt_from": int(mask.sum())} | ({f"{prefix}/unseen_accuracy": others.mean()} if len(others) else {})


def record(job: Job, prefix: str, frame: pd.DataFrame, labels: tuple[str, ...], history: Sequence[dict[str, float]] = ()) -> None:
    """Leave a test set's predictions and metrics, and of the data's own test set the figures.

    Args:
        prefix: the test set's, as `rows.test_sets` gives it.
        frame: as `prediction_frame` makes it.
        labels: the test set's label names.
        history: the training's epochs for the learning curve.
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
    """What a tracker draws of the test scores: `per_class`, a row a label; `reliability`, a row a bin that has predictions."""
    names = ("precision", "recall", "f1", "support")
    rows = [{"label": label, **{name: metrics[f"test/{label}/{name}"] for name in names}} for label in labels]
    bins = reliability(codes(gold, labels, what="gold label"), probabilities, codes(predicted, labels, what="prediction"))
    columns = {"confidence": bins.confidence, "accuracy": bins.accuracy, "rows": bins.count}
    return {"per_class": pd.DataFrame(rows), "reliability": pd.DataFrame(columns)[bins.count > 0]}


def summary(job: Job) -> None:
    """Price the predictions where the machine has a price; say in a line for each test set what came out, and what to doubt."""
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
            remedy = "data.test=0.2, or the value that its training had, scores it on the test rows alone"
        if reason := doubt(metrics, prefix) if overlaps or prefix == "test" else "":
            log.warning("%snot to be relied on: %s%s", on, reason, f". {remedy}" if remedy else "")
