"""`stage=export export.annotations=RUN`: votes as a data set that `datasets.load_dataset(folder)` reads, with a data card.

Texts are included only if their licence allows redistribution, or the user says so (`export.texts=true`); without them, what
quotes a text (rationales, raw responses) and the data set's own labels are left out, too.
"""

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from findistill.core.files import read_json
from findistill.core.job import Job
from findistill.core.store import record_of
from findistill.methods.annotate.card import sources, texts_are_free, write_annotation_card
from findistill.methods.export.sources import annotations_at

log = logging.getLogger(__name__)

OF_THE_TEXTS = ("text", "gold", "rationale")  # columns that are exported only with the texts
SAMPLE = ("id", "sample", "label", "confidence")  # columns of an answer, without its wording
NO_RECORD: dict[str, Any] = {"parents": {}, "settings": {}}


def run(job: Job) -> None:
    settings = job.config.export
    source = annotations_at(settings.annotations)
    record, store = record_of(source).get("key", NO_RECORD), source.resolve().parent
    made_from = sources(record, store)
    texts = texts_are_free(made_from) if settings.texts is None else settings.texts
    folder = job.folder / "annotations"
    folder.mkdir(exist_ok=True)
    votes = pd.read_parquet(source / "annotations.parquet")
    table = votes if texts else votes.drop(columns=[name for name in OF_THE_TEXTS if name in votes])
    table.to_parquet(folder / "annotations.parquet", index=False)
    if (source / "samples.jsonl").is_file():
        write_samples(source / "samples.jsonl", folder / "samples.parquet", texts=texts)
    summary = read_json(source / "summary.json") if (source / "summary.json").is_file() else {}
    write_annotation_card(folder, record, store, summary, votes=votes, texts=texts)
    why = "set by export.texts" if settings.texts is not None else "according to their licence"
    log.info("exported %s annotations %s their texts (%s): %s", f"{len(votes):,}", "with" if texts else "without", why, folder)
    job.metrics["export/rows"] = len(votes)


def write_samples(source: Path, target: Path, *, texts: bool) -> None:
    """Write the answers, one row each: the vote and, with the texts, the raw response."""
    columns = [*SAMPLE, "annotator", *(["raw"] if texts else [])]
    parts = [
        part.reindex(columns=[name for name in columns if name in part])
        for part in pd.read_json(source, lines=True, dtype=False, chunksize=50_000)
    ]
    pd.concat(parts, ignore_index=True).to_parquet(target, index=False)
