"""Settings of the report."""

from dataclasses import dataclass

from findistill.config.fields import setting

BASELINES = ("majority", "neighbours", "tfidf", "embeddings", "encoder", "annotator", "teacher")


@dataclass
class Report:
    # on the jobs' test rows. From the same human labels: the most frequent, the vote of the nearest texts, logistic regression
    # on TF-IDF and on frozen embeddings, the student's encoder and recipe. And the annotator or teacher of students
    baselines: list[str] = setting(list(BASELINES), choices=BASELINES)
    published: str | None = None  # key into the published numbers
    # price of the machine, for the cost of 1,000 predictions in jobs that were run without evaluate.usd_per_hour
    usd_per_hour: float | None = setting(None, gt=0)
    # show texts next to the ids of errors, if the data's licence allows it; for their own files, users decide themselves
    texts: bool = False
    # report on these studies together, in the folder of `study`: methods of one against those of another, on the same test rows
    compare: list[str] = setting([])
    resamples: int = setting(2000, ge=1)
