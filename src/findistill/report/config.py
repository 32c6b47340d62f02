"""Settings of the report."""

from dataclasses import dataclass

from findistill.config.fields import setting

BASELINES = ("majority", "neighbours", "tfidf", "embeddings", "encoder", "annotator", "teacher")


@dataclass
class Report:
    # on the jobs' test rows. By the same human labels: the most frequent, the vote of the nearest texts, logistic regression
    # on TF-IDF and on frozen embeddings, the student's encoder and recipe. And whom students learnt from
    baselines: list[str] = setting(list(BASELINES), choices=BASELINES)
    published: str | None = None  # key into the published numbers
    # price of the machine: what 1,000 predictions cost in jobs that were run without evaluate.usd_per_hour
    usd_per_hour: float | None = setting(None, gt=0)
    # show the texts beside the ids of errors, where the licence of the data allows it; of one's own files one decides oneself
    texts: bool = False
    # of these studies in one report, in the folder of `study`: methods of one against those of another, on the same test rows
    compare: list[str] = setting([])
    resamples: int = setting(2000, ge=1)
