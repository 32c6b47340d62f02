"""`stage=entities entities.step=sample`: draw the headlines that people review.

Needs headlines in which an LLM marked the names (`entities.step=label`). Writes `sample.parquet` and `clusters.csv` to the run
folder, for `stage=review`, and the share of test companies that are also in training headlines.
"""

import logging
import shutil

from findistill.core.files import read_json
from findistill.core.job import Job

log = logging.getLogger(__name__)

FILES = ("sample.parquet", "clusters.csv")


def run(job: Job) -> None:
    folder = job.parents["sample"]
    for name in FILES:
        shutil.copyfile(folder / name, job.folder / name)
    facts = read_json(folder / "sample.json")
    splits = facts.pop("splits")
    job.metrics |= {f"sample/{name}": value for name, value in facts.items() if value is not None}
    job.metrics |= {f"sample/{name}_rows": count for name, count in splits.items()}
    log.info(
        "drew %s of %s headlines (%s names in %s clusters); %s of those drawn have no name",
        *(f"{facts[key]:,}" for key in ("drawn", "headlines", "names", "clusters", "drawn_without_name")),
    )
    if (shared := facts["test_clusters_in_train"]) is not None:
        log.info("%.0f%% of the clusters in test headlines are also in training headlines", 100 * shared)
