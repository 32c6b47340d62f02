"""`stage=entities entities.step=label`: an LLM names the entities of texts, several times over, and its samples vote.

Needs texts and, for demonstrations, rows whose entities are known. Leaves the extractions, which models are trained on at any
agreement, and in the run folder what they cost and how good they are wherever the source has spans of its own.
"""

import logging
from pathlib import Path

import pandas as pd

from findistill.core.job import Job
from findistill.data.spans import from_cell, to_cell
from findistill.methods import rows as reading
from findistill.methods.extract import measures
from findistill.methods.extract.extractions import types_of
from findistill.methods.extract.measures import Extracted

log = logging.getLogger(__name__)

SHOWN = ("f1", "f1_lo", "f1_hi", "precision", "recall", "overlap_f1", "n")


def run(job: Job) -> None:
    types = types_of(reading.dataset(job))
    for prefix, folder in _folders(job).items():
        extracted = measures.read(folder)
        spent = measures.spending(extracted, folder)
        job.metrics |= {name: value for name, value in spent.items() if name not in job.metrics}  # of the first set
        job.metrics |= measures.quality(extracted.gold, types, prefix, job.config.evaluate.resamples)
        write_predictions(job, extracted.gold, prefix)
        log.info("extractions: %s", measures.table(folder))
        summary(job, extracted, prefix)


def _folders(job: Job) -> dict[str, Path]:
    """The artifacts by the prefix of their metrics: `annotate` for training rows, else that of the test set."""
    if "extractions" in job.parents:
        return {"annotate": job.parents["extractions"]}
    tables = [path for role, path in job.parents.items() if role.startswith("extractions/") and measures.table(path).exists()]
    return dict(zip(reading.test_sets(job), tables, strict=True))


def write_predictions(job: Job, rows: pd.DataFrame, prefix: str) -> None:
    """`predictions*.parquet` as the models of entities leave it: id, text, spans (the source's own), predicted."""
    if rows.empty:
        return
    cells = [[to_cell(from_cell(cell)) for cell in rows["gold"]], [to_cell(spans) for spans in measures.predicted(rows)]]
    gold, predicted = (pd.Series(column, rows.index, dtype=object) for column in cells)
    frame = rows[["id", "text"]].assign(spans=gold, predicted=predicted)
    name = "predictions" if prefix in ("test", "annotate") else f"predictions_{prefix}"
    frame.to_parquet(job.folder / f"{name}.parquet", index=False)


def summary(job: Job, extracted: Extracted, prefix: str) -> None:
    """What came out, and what to doubt."""
    metrics, unread = job.metrics, extracted.texts - extracted.readable
    if f"{prefix}/f1" in metrics:
        values = [metrics[f"{prefix}/{name}"] for name in SHOWN]
        log.info("exact F1 %.3f [%.3f, %.3f], precision %.3f, recall %.3f; overlap F1 %.3f; %d texts", *values)
    elif job.step.whole.llm.get("model") == "embedded:smollm2":
        log.warning(
            "SmolLM2 is far too small to be relied on for entities, and no text here has spans to check it: annotate some by "
            "hand, or use a larger model"
        )
    if unread:
        log.warning("%d of %d texts have no readable response: what they name is unknown", unread, extracted.texts)
    if extracted.readable and not extracted.mentions:
        log.warning("not to be relied on: no text has a single entity; annotate.show_prompt=true prints what the LLM was asked")
