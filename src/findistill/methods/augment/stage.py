"""`stage=augment`: new training texts, made from the labelled ones and filtered.

Needs labelled texts, and a teacher's errors on texts that it was not fitted to. An LLM writes new labelled texts like those
errors (`generate`), says the errors differently (`rephrase`), varies any text while its sentiment stays (`vary`), and writes
unlabelled texts like the errors (`similar`); `words` replaces words without an LLM (Thomas 2024, data augmentation; Jiao et
al. 2020, section 4.1). What is malformed, known already, close to a validation or test text, or relabelled otherwise goes.

Leaves the artifact `augment`: `augmented.parquet` with the provenance of every row, `dropped.parquet` with the reason for
every other one, `prompts.json`, `summary.json`. `stage=teacher` and `stage=student` train on the rows with `augment.use=true`.

Pace and budget of the LLM are those of `annotate`, its `dry_run` and `show_prompt` included.
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
        "%s new texts, %s of them labelled, of %s made: %s", f"{summary['augment/kept']:,}",
        f"{summary['augment/labelled']:,}", f"{summary['augment/made']:,}", folder / "augmented.parquet",
    )  # fmt: skip
