"""`stage=student`: train a small model on votes, or on what a teacher model says.

From votes (`distill=cls`, `reg`): needs the annotations of an LLM, or a source with human votes; they are made if they
are not there. Keeps the rows on which at least `distill.min_agreement` of the answers agree, and trains CLS on the hard
label or REG on the vote shares (Deng et al. 2023, section on distillation). The student never sees a human label of the
training rows: validation, too, is against the votes.

From a teacher model (`distill=logit`, `minilm`, `tinybert`): needs the model, which is trained on the data's human labels if none
is named, and its outputs on the labelled texts and those of `distill.pool`. Validation is against human labels. Where the
gold label is the only term, the student is trained as a teacher is: the baseline that distillation is to beat.

Leaves the model, its predictions on human-labelled test rows, metrics. With `augment.use`
the texts of `stage=augment` are learnt from too: voted on, whatever label they were made with, or heard from the teacher.
"""

import logging
from typing import TYPE_CHECKING, cast

from findistill.errors import UserError
from findistill.settings.rules import asks_teacher, tunes
from findistill.settings.schema import TeacherDistill, faults
from findistill.stages import augment, inputs, scoring

if TYPE_CHECKING:
    from findistill.runs.job import Job
    from findistill.settings.schema import Config

log = logging.getLogger(__name__)

READS = ("data", "llm", "prompt", "shots", "annotate", "student", "distill", "trainer", "evaluate", "seed")
READS_TEACHER = ("data", "teacher", "student", "distill", "trainer", "evaluate", "seed")


def reads(config: "Config") -> tuple[str, ...]:
    read: tuple[str, ...] = READS_TEACHER
    if config.distill.votes != "teacher":
        read = (*READS, "qlora") if tunes(config) else READS
    return tuple(dict.fromkeys((*read, *augment.USED))) if config.augment.use else read


def run(job: "Job") -> None:
    if job.config.distill.votes == "teacher":
        from_teacher(job)
    else:
        from_votes(job)


def from_votes(job: "Job") -> None:
    from findistill.learning.fit import Examples
    from findistill.stages.training import train

    config = job.config
    data = inputs.dataset(job)
    tests = inputs.test_sets(job, data)
    new = augment.augmented(job, data, tests)
    voted = inputs.drop_tested(inputs.votes(job, data, new), tests)
    candidates = voted[voted["split"] != "validation"]
    kept = candidates[candidates["agreement"] >= cast(int, config.distill.min_agreement)]
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


def from_teacher(job: "Job") -> None:
    from findistill.data.rows import joined
    from findistill.learning.distil import distil, with_unlabelled
    from findistill.learning.fit import Examples
    from findistill.stages.training import corpus, domain_texts, leave, pretrained, teacher_model, train

    config = job.config
    distill = cast(TeacherDistill, config.distill)
    data = inputs.dataset(job)
    tests = inputs.test_sets(job, data)
    held = data.split("validation")
    new = augment.augmented(job, data, tests)
    made = new["label"].notna()
    labelled = inputs.drop_tested(joined([inputs.supervised(data), new[made]]), tests)
    job.metrics |= {"data/kept": len(labelled), "data/kept_share": 1.0, "data/unlabelled": 0, "data/augmented": len(new)}
    if "selection" in faults(distill.recipe):
        log.warning("distill.recipe=%s picks the student on the test rows: its test scores are too high", distill.recipe)
        held = next(iter(tests.values()))[0]
    examples, measured = Examples.from_frame(labelled, data.labels), Examples.from_frame(held, data.labels)
    if asks_teacher(distill):
        texts = inputs.transfer_texts(job, data, labelled, tests, new[~made])
        job.metrics["data/unlabelled"] = len(texts)
        log.info("distilling on %s labelled and %s unlabelled texts", f"{len(labelled):,}", f"{len(texts):,}")
        unlabelled = domain_texts(job, config.student, data)
        trained = distil(
            pretrained(job, config.student, unlabelled, config.trainer), distill, config.trainer, data.labels,
            with_unlabelled(examples, texts["id"].tolist(), texts["text"].tolist()), measured,
            teacher_model(job, data, labelled), artifact=job.artifact, root=job.store.root,
            seed=config.seed, folder=job.folder, loggers=job.tracker.lightning_loggers(),
            tokens_cache=job.store.root / "tokens", corpus=corpus(data, config.student, unlabelled),
        )  # fmt: skip
        leave(job, trained, data, len(labelled) + len(texts))
    else:
        log.info("no term but the gold label: %s labelled texts, no teacher and no others", f"{len(labelled):,}")
        trained = train(job, config.student, None, data, examples, measured)
    scoring.score(job, trained.model_dir, tests, trained.history)
    scoring.summary(job)
