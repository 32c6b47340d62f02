"""`stage=evaluate`: score any classifier folder, run folder or hub id on the test rows of any data set.

Labels are matched by name. Leaves predictions, metrics and figures, as training stages do.
"""

from typing import TYPE_CHECKING

from findistill.errors import UserError
from findistill.runs.weights import locate
from findistill.stages import inputs, scoring

if TYPE_CHECKING:
    from findistill.runs.job import Job

READS = ("data", "trainer", "evaluate")


def run(job: "Job") -> None:
    if not job.config.evaluate.model:
        raise UserError("stage=evaluate needs evaluate.model: a run folder, a model folder or a hub id")
    data = inputs.dataset(job)
    scoring.score(job, locate(job.config.evaluate.model), inputs.test_sets(job, data))
    scoring.summary(job)
