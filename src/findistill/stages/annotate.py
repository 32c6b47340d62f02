"""`stage=annotate`: an LLM votes on unlabelled texts.

Needs a data set and, for shots, its labelled pool. Leaves the annotation artifact, which `stage=student` uses at every
threshold, and in the run folder how good the annotator is wherever the source has gold labels.
"""

import logging
from typing import TYPE_CHECKING

from findistill.stages import inputs

if TYPE_CHECKING:
    from findistill.runs.job import Job

log = logging.getLogger(__name__)

READS = ("data", "llm", "prompt", "shots", "annotate")


def run(job: "Job") -> None:
    from findistill.analysis import plots

    data = inputs.dataset(job)
    rows = inputs.unlabelled(job, data)
    voted = inputs.annotations(job, data, rows)
    kept = voted["label"].notna()
    job.metrics |= {"annotate/texts": len(voted), "annotate/coverage": kept.mean()}
    for threshold in range(1, job.config.annotate.samples + 1):
        job.metrics[f"annotate/kept_share_{threshold}"] = (voted["agreement"] >= threshold).mean()
    if voted["gold"].notna().any():
        known = voted[voted["gold"].notna()]
        job.metrics["annotate/accuracy"] = (known["label"] == known["gold"]).mean()
        right = known["label"] == known["gold"]
        for threshold in sorted(known["agreement"].unique()):
            job.metrics[f"annotate/accuracy_at_{threshold}"] = right[known["agreement"] >= threshold].mean()
        log.info("accuracy of the majority vote on the source's own labels: %.3f", job.metrics["annotate/accuracy"])
    job.tracker.figures(plots.save(plots.agreement(voted), job.folder / "figures" / "agreement"))
    log.info("annotations: %s", job.store.root / job.artifacts["annotate"] / "annotations.parquet")
