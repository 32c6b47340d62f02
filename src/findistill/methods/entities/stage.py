"""`stage=entities entities.step=train`: train a model that marks entities on the spans of `entities.source`, and score it."""

from findistill.core.job import Job


def run(job: Job) -> None:
    raise NotImplementedError
