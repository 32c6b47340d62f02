"""`stage=entities entities.step=train`: train a model that marks entities on the spans of `entities.source`, and score it.

Epochs and thresholds are chosen on validation texts, whose spans have the same source as the training's; the human-annotated
test texts are used once, at the end. With `entities.source=none` there is no training: the model is scored as it is.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from findistill.core.job import Job
from findistill.data import training_texts
from findistill.data.spans import Span, from_cell
from findistill.inference.latency import latency
from findistill.inference.spans import SpanModel, stream
from findistill.methods import rows as reading
from findistill.methods.entities import models
from findistill.methods.entities.card import write_entities_card
from findistill.methods.entities.config import LEARNT
from findistill.methods.entities.sources import as_column, examples
from findistill.methods.finetune.models import record_training, session
from findistill.methods.provenance import provenance
from findistill.models.label_names import match_labels
from findistill.stats.cost import machine_cost
from findistill.stats.spans import evaluate

log = logging.getLogger(__name__)

TYPE_SCORES = ("precision", "recall", "f1", "spans")  # of each type of entity


def run(job: Job) -> None:
    entities, data, tests = job.config.entities, reading.dataset(job), reading.test_sets(job)
    accelerator, labels = job.config.trainer.accelerator, data.labels.names
    folder = None
    if entities.model in LEARNT and entities.source != "none":
        train, validation = examples(job, data, tests)
        log.info("training on %d texts with %d spans", len(train), sum(map(len, train.spans)))
        trained = models.train(entities.model, entities, labels, train, validation, session(job))
        record_training(job, trained)
        folder = trained.model_dir
    model = models.open_model(entities.model, entities, labels, folder, accelerator)
    start = folder or OmegaConf.select(entities, f"{entities.model}.model")
    for prefix, (rows, label_set) in tests.items():
        record(job, prefix, model, labels, rows, label_set.names)
        job.metrics |= learnt_from(start, rows["text"].tolist(), prefix)
    splits = {"val": labels, **{prefix: label_set.names for prefix, (_, label_set) in tests.items()}}
    job.tracker.per_label(per_label(job.metrics, splits))
    if job.config.evaluate.latency:
        job.metrics |= latency(model.spans, next(iter(tests.values()))[0]["text"].tolist())
    if folder:
        use = getattr(model, "use", None)  # of a GLiNER
        usage = {"prompts": list(use.prompts), "threshold": use.threshold} if use else {}
        texts = int(job.metrics["data/kept"])
        write_entities_card(folder, job.whole, labels, texts, provenance(job), job.metrics, **usage)
    summary(job)


def record(job: Job, prefix: str, model: SpanModel, own: tuple[str, ...], rows: pd.DataFrame, labels: tuple[str, ...]) -> None:
    """Predict a test set once; write `predictions*.parquet` (id, text, spans, predicted) and its metrics.

    Args:
        own: the types of entities that the model predicts.
        labels: those of the test set, matched by name or by `evaluate.label_map`.
    """
    columns = match_labels(own, labels, model=job.config.entities.model, label_map=job.config.evaluate.label_map)
    names = {name: labels[column] for name, column in zip(own, columns, strict=True) if column >= 0}
    predicted = [
        [Span(span.start, span.end, names[span.label]) for span in spans if span.label in names]
        for spans in stream(model, rows["text"])
    ]
    gold = [from_cell(cell) for cell in rows["spans"]]
    frame = rows[["id", "text"]].assign(spans=as_column(gold, rows.index), predicted=as_column(predicted, rows.index))
    name = "predictions" if prefix == "test" else f"predictions_{prefix}"
    frame.to_parquet(job.folder / f"{name}.parquet", index=False)
    job.metrics |= evaluate(gold, predicted, labels, prefix=prefix, resamples=job.config.evaluate.resamples)


def per_label(metrics: Mapping[str, float], splits: Mapping[str, Sequence[str]]) -> dict[str, pd.DataFrame]:
    """Scores of each type of entity, by split that was scored, for a tracker: see `Tracker.per_label`.

    Args:
        splits: the types by the prefix of a split's metrics; a single type uses the averages.
    """
    frames = {}
    for prefix, labels in splits.items():
        own = {label: f"{prefix}/{label}" if len(labels) > 1 else prefix for label in labels}
        if all(f"{of}/precision" in metrics for of in own.values()):
            rows = [{"label": label, **{name: metrics[f"{of}/{name}"] for name in TYPE_SCORES}} for label, of in own.items()]
            frames[prefix] = pd.DataFrame(rows)
    return frames


def learnt_from(model: Path | str | None, texts: list[str], prefix: str) -> dict[str, float]:
    """How many test texts are among the model's recorded training texts; empty if none are."""
    overlap = training_texts.known(model, texts).sum() if model else 0
    return {f"{prefix}/learnt_from": int(overlap)} if overlap else {}


def summary(job: Job) -> None:
    """Add the cost of predictions if the machine has a price; log the scores of each test set, and reasons to distrust them."""
    metrics = job.metrics
    metrics |= machine_cost(metrics, job.config.evaluate.usd_per_hour)
    for prefix in (name.removesuffix("/spans_predicted") for name in list(metrics) if name.endswith("/spans_predicted")):
        values = [metrics[f"{prefix}/{name}"] for name in ("f1", "f1_lo", "f1_hi", "precision", "recall", "overlap_f1", "n")]
        on = f"{prefix}: " if prefix != "test" else ""
        log.info("%sexact F1 %.3f [%.3f, %.3f], precision %.3f, recall %.3f; overlap F1 %.3f; %d texts", on, *values)
        if number := metrics.get(f"{prefix}/learnt_from"):
            log.warning("%sunreliable: the model was trained on %d of these test texts", on, number)
        elif not metrics[f"{prefix}/spans_predicted"]:
            log.warning("%sunreliable: the model marks no entities. Train it longer (min_steps), or on more texts", on)
