"""`stage=teacher`: fine-tune an encoder on human labels.

Needs a labelled data set, with scores for `teacher.objective=regression`. Leaves the model, its predictions on the test
split and their metrics. Checkpoints are chosen on the validation split; the test split is read once, at the end.
With `augment.use` the labelled texts of `stage=augment` are training rows too.
"""

from typing import TYPE_CHECKING

from findistill.errors import UserError
from findistill.stages import augment, inputs, scoring

if TYPE_CHECKING:
    from findistill.runs.job import Job
    from findistill.settings.schema import Config

READS = ("data", "teacher", "trainer", "evaluate", "seed")


def reads(config: "Config") -> tuple[str, ...]:
    return tuple(dict.fromkeys((*READS, *augment.USED))) if config.augment.use else READS


def run(job: "Job") -> None:
    from findistill.data.rows import joined
    from findistill.learning.fit import Examples
    from findistill.stages.training import train

    data = inputs.dataset(job)
    tests = inputs.test_sets(job, data)
    new = augment.augmented(job, data, tests)
    new = new[new["label"].notna()]
    rows = inputs.drop_tested(joined([inputs.supervised(data), new]), tests)
    held = data.split("validation")
    if rows["label"].nunique() < 2:
        raise UserError(
            f"stage=teacher needs labels of at least two classes; data={job.config.data.name} has {rows['label'].nunique()}"
        )
    job.metrics |= {"data/kept": len(rows), "data/kept_share": 1.0, "data/augmented": len(new)}
    of = Examples.from_scores if job.config.teacher.objective == "regression" else Examples.from_frame
    trained = train(job, job.config.teacher, None, data, of(rows, data.labels), of(held, data.labels))
    scoring.score(job, trained.model_dir, tests, trained.history)
    scoring.summary(job)
