"""`stage=student`: train a small model on votes.

Needs the annotations of an LLM, or a source with human votes; they are made if they are not there. Keeps the rows on
which at least `distill.min_agreement` of the answers agree, and trains CLS on the hard label or REG on the vote shares
(Deng et al. 2023, section on distillation). Leaves the model, its predictions on human-labelled test rows, metrics.

The student never sees a human label of the training rows: validation, too, is against the votes. With `augment.use` the texts of
`stage=augment` are voted on and trained on too, whatever label they were made with.
"""

import logging
from typing import TYPE_CHECKING

from findistill.errors import UserError
from findistill.stages import augment, inputs, scoring

if TYPE_CHECKING:
    from findistill.runs.job import Job
    from findistill.settings.schema import Config

log = logging.getLogger(__name__)

READS = ("data", "llm", "prompt", "shots", "annotate", "student", "distill", "trainer", "evaluate", "seed")


def reads(config: "Config") -> tuple[str, ...]:
    return tuple(dict.fromkeys((*READS, *augment.USED))) if config.augment.use else READS


def run(job: "Job") -> None:
    from findistill.learning.fit import Examples
    from findistill.stages.training import train

    config = job.config
    data = inputs.dataset(job)
    tests = inputs.test_sets(job, data)
    new = augment.augmented(job, data, tests)
    voted = inputs.drop_tested(inputs.votes(job, data, new), tests)
    candidates = voted[voted["split"] != "validation"]
    kept = candidates[candidates["agreement"] >= config.distill.min_agreement]
    held = voted[voted["split"] == "validation"]
    if kept["label"].nunique() < 2:
        raise UserError(
            f"distill.min_agreement={config.distill.min_agreement} keeps {len(kept)} of {len(candidates)} texts, "
            f"{kept['label'].nunique()} classes; a student needs two. Lower it, or annotate more texts."
        )
    job.metrics |= {"data/kept": len(kept), "data/kept_share": len(kept) / len(candidates)}
    job.metrics["data/augmented"] = int(kept["id"].isin(set(new["id"])).sum())
    if "gold" in kept and kept["gold"].notna().any():
        job.metrics["data/kept_accuracy"] = float((kept["label"] == kept["gold"]).mean())
    log.info("%d of %d texts kept at agreement >= %d", len(kept), len(candidates), config.distill.min_agreement)
    of = Examples.from_frame
    trained = train(job, config.student, config.distill, data, of(kept, data.labels), of(held, data.labels))
    scoring.score(job, trained.model_dir, tests, trained.history)
    scoring.summary(job)
