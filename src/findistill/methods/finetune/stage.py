"""`stage=teacher`: fine-tune an encoder on human labels.

Needs a labelled data set, with scores for `teacher.objective=regression`. Writes the model, its predictions on the test
split and their metrics. The checkpoint is selected on the validation split; the test split is used once, at the end.
With `augment.use` the labelled texts of `stage=augment` are training rows, too.
"""

from findistill.core.job import Job
from findistill.methods import rows as reading
from findistill.methods.finetune.models import score_and_describe, train, training_rows
from findistill.training.trainer import Examples


def run(job: Job) -> None:
    data = reading.dataset(job)
    tests = reading.test_sets(job)
    rows, validation = training_rows(job, data, tests, job.config.teacher)
    reading.check_classes(rows, data, "stage=teacher")
    augmented = reading.augmented_rows(job)["label"].notna().sum()
    job.metrics |= {"data/kept": len(rows), "data/kept_share": 1.0, "data/augmented": int(augmented)}
    examples = Examples.from_scores if job.config.teacher.objective == "regression" else Examples.from_frame
    encoder = job.config.teacher
    trained = train(job, encoder, None, data, examples(rows, data.labels), examples(validation, data.labels))
    score_and_describe(job, trained, data, tests, len(rows))
