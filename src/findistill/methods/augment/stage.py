"""`stage=augment`: new training texts, created from the labelled ones and filtered.

Needs labelled texts, and a teacher's errors on texts that it was not trained on. An LLM writes new labelled texts like those
errors (`generate`), paraphrases the errors (`rephrase`), varies any text while keeping its sentiment (`vary`), and writes
unlabelled texts like the errors (`similar`); `words` replaces words without an LLM (Thomas 2024, data augmentation; Jiao et
al. 2020, section 4.1). Texts are dropped if they are malformed, too close to a training, validation or test text, or
relabelled differently.

Creates the artifact `augment`: `augmented.parquet` with the provenance of every row, `dropped.parquet` with the reason for
every dropped one, `prompts.json`, `summary.json`. `stage=teacher` and `stage=student` train on the rows with `augment.use=true`.

The LLM's concurrency and budget are those of `annotate`, including its `dry_run` and `show_prompt`.
"""

import logging

from findistill.core.files import read_json
from findistill.core.job import Job

log = logging.getLogger(__name__)


def run(job: Job) -> None:
    folder = job.parents["augment"]
    summary = read_json(folder / "summary.json")
    job.metrics |= {name: float(value) for name, value in summary.items() if value is not None}
    log.info(
        "kept %s of %s new texts, %s of them labelled: %s", f"{summary['augment/kept']:,}", f"{summary['augment/made']:,}",
        f"{summary['augment/labelled']:,}", folder / "augmented.parquet",
    )  # fmt: skip
