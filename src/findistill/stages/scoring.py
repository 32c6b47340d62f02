"""From a trained model to the files every scored run leaves: predictions, metrics, figures, model card."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from findistill.errors import UserError
from findistill.runs.files import replacing

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from findistill.data.labels import LabelSet
    from findistill.learning.fit import Prediction
    from findistill.runs.job import Job

log = logging.getLogger(__name__)


def spelled(names: Sequence[str], labels: tuple[str, ...], model: str) -> tuple[str, ...]:
    """A model's own label names, those that a label set has spelled as there: `Positive` is `positive`.

    Raises:
        UserError: no name is a label, so that there is nothing to score.
    """
    ours = {label.lower(): label for label in labels}
    known = tuple(ours.get(name.lower(), name) for name in names)
    if not set(known) & set(labels):
        raise UserError(
            f"the model {model} names its labels {', '.join(names)}; none is one of {', '.join(labels)}.\n"
            "Labels are matched by name: rename them in id2label of the model's config.json"
        )
    return known


def regression(scores: "np.ndarray", predicted: "np.ndarray", prefix: str) -> dict[str, float]:
    """Mean squared error and, where the scores differ, R2: 1 less the share of their variance that is left."""
    mse, variance = float(((predicted - scores) ** 2).mean()), float(scores.var())
    return {f"{prefix}/mse": mse} | ({f"{prefix}/r2": 1 - mse / variance} if variance else {})


def forced_choice(probabilities: "np.ndarray", names: tuple[str, ...], allowed: tuple[str, ...]) -> "np.ndarray":
    """Probabilities over `allowed`, renormalised: a three-label model must choose on a two-label test set.

    Args:
        probabilities: (n, len(names)).
    Returns:
        (n, len(allowed)), columns matched by name. A label that the model does not know gets zero.
    """
    import numpy as np

    columns = [probabilities[:, names.index(label)] if label in names else np.zeros(len(probabilities)) for label in allowed]
    chosen = np.stack(columns, axis=1)
    total = chosen.sum(axis=1, keepdims=True)
    return np.where(total > 0, chosen / np.where(total > 0, total, 1), 1 / len(allowed))


def matched(prediction: "Prediction", labels: tuple[str, ...], model: str) -> "tuple[np.ndarray, list[str]]":
    """Probabilities (n, len(labels)) and the label of each text, columns matched by name; a forced choice if they differ."""
    known = spelled(prediction.labels, labels, model)
    if set(labels) == set(known):
        order = [known.index(label) for label in labels]
        return prediction.probabilities[:, order], [known[prediction.labels.index(name)] for name in prediction.predicted]
    probabilities = forced_choice(prediction.probabilities, known, labels)
    return probabilities, [labels[column] for column in probabilities.argmax(axis=1)]


def prediction_frame(
    rows: "pd.DataFrame", probabilities: "np.ndarray", predicted: "Sequence[str | None]", labels: tuple[str, ...]
) -> "pd.DataFrame":
    """`id, text, label, predicted, p_<label>...`, one row a test text."""
    frame = rows[["id", "text", "label"]].reset_index(drop=True).copy()
    frame["predicted"] = predicted
    for column, label in enumerate(labels):
        frame[f"p_{label}"] = probabilities[:, column]
    return frame


def score(
    job: "Job",
    model: Path | str,
    tests: "dict[str, tuple[pd.DataFrame, LabelSet]]",
    history: Sequence[dict[str, float]] = (),
) -> None:
    """Predict every test set once with `model`, and leave `predictions*.parquet`, metrics and figures.

    Args:
        tests: rows and labels by metric prefix, as `inputs.test_sets` gives them.
        history: the training's epochs for the learning curve; none where nothing was trained.
    """
    if Path(model).suffix == ".onnx":
        from findistill.learning.onnx_model import latency, predict
    else:
        from findistill.learning.fit import latency, predict

    config = job.config
    for prefix, (rows, label_set) in tests.items():
        labels = label_set.names
        prediction = predict(model, rows["text"].tolist(), config.trainer, tokens_cache=job.store.root / "tokens")
        probabilities, predicted = matched(prediction, labels, str(model))
        frame = prediction_frame(rows, probabilities, predicted, labels)
        if prediction.scores is not None and "score" in rows:
            frame = frame.assign(score=rows["score"].to_numpy(), predicted_score=prediction.scores)
            job.metrics |= regression(frame["score"].to_numpy(), prediction.scores, prefix)
        record(job, prefix, frame, labels, history)
    if config.evaluate.latency:
        rows = next(iter(tests.values()))[0]
        job.metrics |= latency(model, rows["text"].tolist(), config.trainer)


def record(
    job: "Job", prefix: str, frame: "pd.DataFrame", labels: tuple[str, ...], history: Sequence[dict[str, float]] = ()
) -> None:
    """Leave a test set's predictions and metrics, and of the data's own test set the figures.

    Args:
        prefix: the test set's, as `inputs.test_sets` gives it.
        frame: as `prediction_frame` makes it.
        labels: the test set's label names.
        history: the training's epochs for the learning curve.
    """
    from findistill.analysis.metrics import evaluate
    from findistill.analysis.plots import save_run_figures

    name = "predictions" if prefix == "test" else f"predictions_{prefix}"
    with replacing(job.folder / f"{name}.parquet") as aside:
        frame.to_parquet(aside, index=False)
    gold, probabilities = frame["label"].tolist(), frame[[f"p_{label}" for label in labels]].to_numpy()
    predicted = [label if isinstance(label, str) else None for label in frame["predicted"]]
    job.metrics |= evaluate(gold, probabilities, predicted, labels, prefix=prefix, resamples=job.config.evaluate.resamples)
    if prefix == "test":
        figures = save_run_figures(job.folder / "figures", history, gold, probabilities, predicted, labels)
        job.tracker.figures(figures)
        job.tracker.predictions(frame, labels)


def summary(job: "Job") -> None:
    """Say in three lines what came out and where it is."""
    found = job.metrics
    if "test/accuracy" in found:
        low, high = found["test/accuracy_lo"], found["test/accuracy_hi"]
        log.info("accuracy %.3f [%.3f, %.3f]  macro F1 %.3f", found["test/accuracy"], low, high, found["test/macro_f1"])
    log.info("run folder: %s", job.folder)
