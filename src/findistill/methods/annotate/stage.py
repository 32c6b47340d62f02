"""`stage=annotate`: an LLM votes on unlabelled texts.

Needs a data set and, for demonstrations, labelled rows. Leaves the annotation artifact, which `stage=student` uses at every
threshold, and in the run folder what it cost and how good the annotator is wherever the source has gold labels.
"""

import logging

import numpy as np
import pandas as pd

from findistill.core.job import Job
from findistill.data.labels import LabelSet
from findistill.methods import rows as reading
from findistill.methods import scoring
from findistill.methods.annotate import measures
from findistill.report import plots, style
from findistill.stats.alignment import prediction_frame
from findistill.stats.metrics import evaluate

log = logging.getLogger(__name__)


def run(job: Job) -> None:
    folder, labels = job.parents["annotations"], reading.dataset(job).labels
    votes, shares = reading.read_votes(folder, labels.names)
    job.metrics |= measures.measure(votes, folder, job.config.annotate.samples)
    score(job, votes, shares, labels)
    with style.dispensable("agreement"):
        job.tracker.figures(style.save(plots.agreement(votes), job.folder / "figures" / "agreement"))
    log.info("annotations: %s", folder / "annotations.parquet")


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
    scoring.summary(job)
