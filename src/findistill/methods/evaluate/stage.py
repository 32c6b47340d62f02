"""`stage=evaluate`: score any classifier folder, run folder, hub id or ONNX file on the test rows of any data set.

Labels are matched by name. Writes predictions, metrics and figures, as training stages do.
"""

from findistill.core.job import Job
from findistill.inference import onnx_model
from findistill.methods import rows as reading
from findistill.methods import scoring
from findistill.models.weights import locate


def run(job: Job) -> None:
    model = job.config.evaluate.model
    scoring.score(job, onnx_model.find(model) or locate(model), reading.test_sets(job))
    scoring.summary(job)
