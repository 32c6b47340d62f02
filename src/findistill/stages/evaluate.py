"""`stage=evaluate`: score any classifier folder, run folder, hub id or ONNX file on the test rows of any data set.

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
    from findistill.learning import onnx_model

    model = job.config.evaluate.model
    if not model:
        raise UserError("stage=evaluate needs evaluate.model: a run folder, a model folder, a hub id or an ONNX file")
    where = onnx_model.find(model) or locate(model)
    data = inputs.dataset(job)
    scoring.score(job, where, inputs.test_sets(job, data))
    scoring.summary(job)
