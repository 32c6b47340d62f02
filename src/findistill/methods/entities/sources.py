"""The spans that an entity model is trained on (`entities.source`); none of the texts is in a test set."""

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from findistill.core.job import Job
from findistill.data.spans import Marked, Span, from_cell
from findistill.data.texts import TextData
from findistill.errors import UserError
from findistill.inference.spans import stream
from findistill.llm.votes import certainty
from findistill.methods import rows as reading
from findistill.methods.entities.config import UNTRAINED
from findistill.methods.entities.models import open_model

log = logging.getLogger(__name__)


def marked(rows: pd.DataFrame) -> Marked:
    """The texts and spans of annotated rows."""
    return Marked(rows["text"].tolist(), [from_cell(cell) for cell in rows["spans"]])


def examples(job: Job, data: TextData, tests: reading.TestSets) -> tuple[Marked, Marked]:
    """Training examples, and validation examples to choose epochs and thresholds, both from the same source.

    With `source=human` these are the labelled rows. Other sources label the texts of the training and validation split.

    Raises:
        UserError: there is nothing to train on.
    """
    source = job.config.entities.source
    if source == "human":
        train, validation = reading.supervision(job, data, tests)
    else:
        rows = _labelled_by(job, data, source)
        rows = reading.drop_test_overlap(rows, tests)
        train, validation = (rows[(rows["split"] == "validation") == chosen] for chosen in (False, True))
    if not len(train):
        raise UserError(
            f"entities.source={source}: no training text of data={data.card.name} has spans; lower entities.min_agreement "
            f"(now {job.config.entities.min_agreement:g}), or use more texts"
        )
    if not any(len(cell) for cell in train["spans"]):
        raise UserError(
            f"entities.source={source}: none of the {len(train):,} training texts of data={data.card.name} has a span: "
            "there is nothing to learn. Check the labels, or choose another source"
        )
    job.metrics |= {"data/kept": len(train), "data/spans": sum(map(len, train["spans"]))}
    return marked(train), marked(validation)


def _labelled_by(job: Job, data: TextData, source: str) -> pd.DataFrame:
    """Rows of the training and validation split with the spans of a source, in `spans`, and their `split`."""
    if source in UNTRAINED:
        rows = data.split("train", "validation")
        labeller = open_model(source, job.config.entities, data.labels.names)
        return rows.assign(spans=as_column(stream(labeller, rows["text"].tolist()), rows.index))
    answers = pd.read_parquet(job.parents["extractions"] / "annotations.parquet")
    gold = data.frame[["id", "split", *(["spans"] if "spans" in data.frame else [])]].rename(columns={"spans": "human"})
    rows = answers.merge(gold, on="id", how="inner", validate="one_to_one")
    shares = np.asarray([certainty(cell, n_valid) for cell, n_valid in zip(rows["candidates"], rows["n_valid"], strict=True)])
    agreed = (rows["n_valid"] > 0).to_numpy() & (shares >= job.config.entities.min_agreement)
    if source == "mixed":
        human = ~agreed & rows["human"].notna().to_numpy()
        rows["spans"] = rows["spans"].where(~human, rows["human"])
        job.metrics["data/human_share"] = float(human.sum() / max(1, (agreed | human).sum()))
        agreed |= human
    log.info("%d of %d texts kept at agreement >= %g", agreed.sum(), len(rows), job.config.entities.min_agreement)
    return rows[agreed].reset_index(drop=True)


def as_column(spans: Iterable[Sequence[Span]], index: pd.Index) -> pd.Series:
    """Spans as a table column: a list of mappings for each text."""
    return pd.Series([[{"start": s.start, "end": s.end, "label": s.label} for s in own] for own in spans], index, dtype=object)
