"""`stage=export export.annotations=RUN`: votes as a data set that `datasets.load_dataset(folder)` reads, with a data card.

Texts go with it only where their licence lets others have them, or the user says so (`export.texts=true`); without them, what
quotes a text (rationales, raw answers) and the data set's own labels stay here, too.
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

OF_THE_TEXTS = ("text", "gold", "rationale")  # columns that go with the texts alone
SAMPLE = ("id", "sample", "label", "confidence")  # of an answer, without its wording
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
    why = "as export.texts says" if settings.texts is not None else "as their licence has it"
    log.info("%s annotations %s their texts, %s: %s", f"{len(votes):,}", "with" if texts else "without", why, folder)
    job.metrics["export/rows"] = len(votes)


def write_samples(source: Path, target: Path, *, texts: bool) -> None:
    """The answers, a row each: what was voted, and with the texts how it was worded."""
    columns = [*SAMPLE, "annotator", *(["raw"] if texts else [])]
    parts = [
        part.reindex(columns=[name for name in columns if name in part])
        for part in pd.read_json(source, lines=True, dtype=False, chunksize=50_000)
    ]
    pd.concat(parts, ignore_index=True).to_parquet(target, index=False)
