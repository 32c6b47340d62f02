"""`stage=entities entities.step=label`: an LLM names the entities of texts, several times over, and its samples vote.

Needs texts and, for demonstrations, rows with annotated entities. Creates the extractions, on which models can be trained at
any agreement, and writes their cost and, where the source has gold spans, their quality to the run folder.
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
        job.metrics |= {name: value for name, value in spent.items() if name not in job.metrics}  # keeps those of the first set
        job.metrics |= measures.quality(extracted.gold, types, prefix, job.config.evaluate.resamples)
        write_predictions(job, extracted.gold, prefix)
        log.info("extractions: %s", measures.table(folder))
        summary(job, extracted, prefix)


def _folders(job: Job) -> dict[str, Path]:
    """Artifacts by metric prefix: `annotate` for training rows, else the test set's."""
    if "extractions" in job.parents:
        return {"annotate": job.parents["extractions"]}
    tables = [path for role, path in job.parents.items() if role.startswith("extractions/") and measures.table(path).exists()]
    return dict(zip(reading.test_sets(job), tables, strict=True))


def write_predictions(job: Job, rows: pd.DataFrame, prefix: str) -> None:
    """Write `predictions*.parquet` in the format of the entity models: id, text, spans (gold), predicted."""
    if rows.empty:
        return
    cells = [[to_cell(from_cell(cell)) for cell in rows["gold"]], [to_cell(spans) for spans in measures.predicted(rows)]]
    gold, predicted = (pd.Series(column, rows.index, dtype=object) for column in cells)
    frame = rows[["id", "text"]].assign(spans=gold, predicted=predicted)
    name = "predictions" if prefix in ("test", "annotate") else f"predictions_{prefix}"
    frame.to_parquet(job.folder / f"{name}.parquet", index=False)


def summary(job: Job, extracted: Extracted, prefix: str) -> None:
    """Log the scores, and warn about unreliable results."""
    metrics, unread = job.metrics, extracted.texts - extracted.readable
    if f"{prefix}/f1" in metrics:
        values = [metrics[f"{prefix}/{name}"] for name in SHOWN]
        log.info("exact F1 %.3f [%.3f, %.3f], precision %.3f, recall %.3f; overlap F1 %.3f; %d texts", *values)
    elif job.step.whole.llm.get("model") == "embedded:smollm2":
        log.warning(
            "unreliable: SmolLM2 is far too small for entities, and no text here has gold spans to check it: annotate some by "
            "hand, or use a larger model"
        )
    if unread:
        log.warning("%d of %d texts have no readable response: their entities are unknown", unread, extracted.texts)
    if extracted.readable and not extracted.mentions:
        log.warning("unreliable: the LLM named no entity in any text; annotate.show_prompt=true prints its prompt")
