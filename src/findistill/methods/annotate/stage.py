"""`stage=annotate`: an LLM votes on unlabelled texts.

Needs a data set and, for demonstrations, labelled rows. Creates the annotation artifact, which `stage=student` uses at every
threshold, and records its cost and, if the source has gold labels, the annotator's quality in the run folder.
"""

import logging
from collections.abc import Iterator

import numpy as np
import pandas as pd

from findistill.core.files import write_whole
from findistill.core.job import Job
from findistill.data.labels import LabelSet
from findistill.methods import rows as reading
from findistill.methods import scoring
from findistill.methods.annotate import measures
from findistill.methods.annotate.labelling import next_to_label
from findistill.report import plots, style, tables
from findistill.stats.alignment import prediction_frame
from findistill.stats.metrics import evaluate

log = logging.getLogger(__name__)

FEW = 30  # texts; with fewer, the same label on all may be chance
ONE_SIDED = 0.97  # share of texts under one label


def run(job: Job) -> None:
    folder, labels = job.parents["annotations"], reading.dataset(job).labels
    votes, shares = reading.read_votes(folder, labels.names)
    job.metrics |= measures.measure(votes, folder, job.config.annotate.samples)
    score(job, votes, shares, labels)
    if votes["n_samples"].max() > 1:
        with style.dispensable("agreement"):
            job.tracker.figures(style.save(plots.agreement(votes), job.folder / "figures" / "agreement"))
    if job.config.annotate.next:
        write_next(job, votes, shares)
    log.info("annotations: %s", folder / "annotations.parquet")
    for warning in doubts(job, votes):
        log.warning("%s", warning)


def write_next(job: Job, votes: pd.DataFrame, shares: np.ndarray) -> None:
    """Write `to_label.csv`, the texts that a person should label next."""
    labelled = reading.demonstration_pool(job)["text"].tolist()
    rows = next_to_label(votes, shares, labelled, job.config.annotate.next)
    path = write_whole(job.folder / "to_label.csv", tables.csv(rows))
    log.info("%d texts to label next, with low agreement and unlike each other: fill in the column label of %s", len(rows), path)


def doubts(job: Job, votes: pd.DataFrame) -> Iterator[str]:
    """Reasons to distrust these annotations, to be known before a student is trained on them."""
    config = job.step.whole  # warnings are not part of the result, so what they read does not enter the key
    rows = votes[votes["gold"].notna()]
    right, shares = (rows["label"] == rows["gold"]).mean(), rows["gold"].value_counts(normalize=True)
    if len(rows) and right < shares.iloc[0]:
        yield (
            f"the annotator's accuracy on {len(rows):,} labelled texts is {right:.3f}, and that of always answering "
            f"{shares.index[0]!r} is {shares.iloc[0]:.3f}: there is nothing to learn from it"
        )
    elif not len(rows) and config.llm.get("model") == "embedded:smollm2" and not config.shots.k:
        yield (
            "SmolLM2 with shots.k=0 is close to guessing on financial texts, and no text here has a label to check it: label 100 "
            "by hand and use them as demonstrations (data.labelled=100 shots.k=4), or use a larger model"
        )
    labels = votes["label"].value_counts(normalize=True)
    if len(votes) >= FEW and len(labels) and labels.iloc[0] >= ONE_SIDED:
        yield f"{labels.iloc[0]:.0%} of the texts got the label {labels.index[0]!r}: the annotator hardly distinguishes them"


def score(job: Job, votes: pd.DataFrame, shares: np.ndarray, labels: LabelSet) -> None:
    """Score against the source's own labels, which the annotator never saw: the vote shares are its probabilities."""
    has_gold = votes["gold"].notna().to_numpy()
    if not has_gold.any():
        return
    rows, shares = votes[has_gold], shares[has_gold]
    predicted = reading.optional_labels(rows["label"])
    frame = prediction_frame(rows.assign(label=rows["gold"]), shares, predicted, labels.names)
    frame.to_parquet(job.folder / "predictions.parquet", index=False)
    resamples = job.config.evaluate.resamples
    job.metrics |= evaluate(frame["label"].tolist(), shares, predicted, labels.names, resamples=resamples)
    if adapter := job.step.whole.llm.get("adapter"):
        job.metrics |= scoring.overlap(adapter, frame, "test")
    scoring.summary(job)
