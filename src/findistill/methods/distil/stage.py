"""`stage=student`: train a small model on votes, or on the outputs of a teacher model.

From votes (`distill=cls`, `reg`): the annotations of an LLM, or a source with human votes. Keeps the rows on which at
least `distill.min_agreement` of the answers agree, and trains CLS on the hard label or REG on the vote shares (Deng et al.
2023, section on distillation). The student never sees a human label of the training rows: validation also uses the votes.
With `distill.gold` the student is also trained on the labelled rows, and validation uses human labels.

From a teacher model (`distill=logit`, `minilm`, `tinybert`): its outputs on the labelled texts, the data's other texts and
those of `distill.unlabelled`. Validation uses human labels. If the gold label is the only loss term, the student is trained
like a teacher: the baseline that distillation has to beat.

Writes the model, its predictions on human-labelled test rows, and metrics. With `augment.use` the student is also trained on
the texts of `stage=augment`: annotated regardless of the label they were created for, or with the teacher's outputs.
"""

import logging
from typing import cast

import pandas as pd

from findistill.core.job import Job
from findistill.data.labels import LabelSet
from findistill.data.texts import TextData
from findistill.errors import UserError
from findistill.methods import rows as reading
from findistill.methods.finetune import models
from findistill.training.config import TeacherDistill, asks_teacher, faults
from findistill.training.distillation import distil, with_unlabelled
from findistill.training.trainer import Examples

log = logging.getLogger(__name__)


def run(job: Job) -> None:
    if job.config.distill.source == "teacher":
        from_teacher(job)
    else:
        from_votes(job)


def from_votes(job: Job) -> None:
    settings, data, tests = job.config.distill, reading.dataset(job), reading.test_sets(job)
    rows = reading.drop_test_overlap(votes(job, data), tests)
    candidates = rows[rows["split"] != "validation"]
    selected = candidates[candidates["label"].notna() & (candidates["agreement"] >= settings.min_agreement)]
    validation = rows[(rows["split"] == "validation") & rows["label"].notna()]
    if selected["label"].nunique() < 2:
        raise UserError(
            f"distill.min_agreement={settings.min_agreement} keeps {len(selected)} of {len(candidates)} texts, "
            f"{selected['label'].nunique()} classes; a student needs at least two. Lower it, or annotate more texts."
        )
    job.metrics["data/kept_share"] = len(selected) / len(candidates)
    job.metrics["data/augmented"] = int(selected["id"].isin(set(reading.augmented_rows(job)["id"])).sum())
    if "gold" in selected and selected["gold"].notna().any():
        job.metrics["data/kept_accuracy"] = float((selected["label"] == selected["gold"]).mean())
    if "annotations" in job.parents and settings.objective == "reg":
        note_stopped(rows["n_samples"])
    log.info("%d of %d texts kept at agreement >= %d", len(selected), len(candidates), settings.min_agreement)
    if settings.gold:
        labelled, validation = reading.supervision(job, data, tests)
        log.info("plus %d texts with human labels", len(labelled))
        selected = with_gold(selected, labelled, validation, data.labels)
    job.metrics["data/kept"] = len(selected)
    examples, held_out = (Examples.from_frame(part, data.labels) for part in (selected, validation))
    trained = models.train(job, job.config.student, settings, data, examples, held_out)
    models.score_and_describe(job, trained, data, tests, len(selected))


def with_gold(votes: pd.DataFrame, labelled: pd.DataFrame, validation: pd.DataFrame, labels: LabelSet) -> pd.DataFrame:
    """The `labelled` rows, with their human label as unanimous votes, and the votes on all other texts."""
    shares = {f"soft_{name}": (labelled["label"] == name).astype(float) for name in labels.names}
    others = votes[~votes["id"].isin({*labelled["id"], *validation["id"]})]
    return pd.concat([labelled[["id", "text", "label"]].assign(**shares), others], ignore_index=True)


def note_stopped(samples: pd.Series) -> None:
    """Warn if texts have different numbers of samples: early stopping makes vote shares more extreme."""
    if samples.nunique() > 1:
        log.warning(
            "REG learns vote shares of %d to %d samples: annotate.stop_at stops sampling once samples agree, which makes "
            "shares more extreme than with all %d samples. CLS and the selection of texts are unaffected",
            samples.min(), samples.max(), samples.max(),
        )  # fmt: skip


def votes(job: Job, data: TextData) -> pd.DataFrame:
    """The rows that the LLM or the source's own annotators were asked about, each with its `split`; `label` None without one.

    If no validation row was labelled, a share of the others (`data.validation`) becomes the validation split.
    """
    if "annotations" in job.parents:
        rows = pd.read_parquet(job.parents["annotations"] / "annotations.parquet")
        needed = ["id", "text", "label", "agreement", *(f"soft_{name}" for name in data.labels.names)]
        if absent := [name for name in needed if name not in rows]:
            raise UserError(
                f"{job.parents['annotations'] / 'annotations.parquet'} has no column {', '.join(absent)}; "
                f"votes need the columns {', '.join(needed)}"
            )
    else:
        rows = data.human_votes("train", "validation")
    rows = rows.merge(data.frame[["id", "split"]], on="id", how="left", validate="one_to_one")
    labelled = rows[rows["label"].notna()]
    if not (labelled["split"] == "validation").any():
        sample = labelled.sample(frac=job.config.data.validation, random_state=job.config.data.seed).index
        rows.loc[sample, "split"] = "validation"
    return rows


def from_teacher(job: Job) -> None:
    config = job.config
    distill = cast(TeacherDistill, config.distill)
    data, tests, new = reading.dataset(job), reading.test_sets(job), reading.augmented_rows(job)
    labelled, validation = models.training_rows(job, data, tests)
    job.metrics |= {"data/kept": len(labelled), "data/kept_share": 1.0, "data/unlabelled": 0, "data/augmented": len(new)}
    scored = validation
    if "selection" in faults(distill.recipe):
        log.warning("distill.recipe=%s picks the student on the test rows: its test scores are too high", distill.recipe)
        scored = next(iter(tests.values()))[0]
    examples, held_out = Examples.from_frame(labelled, data.labels), Examples.from_frame(scored, data.labels)
    if asks_teacher(distill):
        unlabelled = reading.dataset(job, "unlabelled") if "unlabelled" in job.parents else None
        texts = reading.transfer_texts(data, labelled, validation, tests, new[new["label"].isna()], unlabelled)
        job.metrics["data/unlabelled"] = len(texts)
        log.info("distilling on %s labelled and %s unlabelled texts", f"{len(labelled):,}", f"{len(texts):,}")
        trained = distil(
            models.starting_point(job, config.student), distill, data.labels,
            with_unlabelled(examples, texts["id"].tolist(), texts["text"].tolist()), held_out, str(job.parents["teacher"]),
            models.session(job), artifact=job.store.get, root=job.store.root,
            others=[str(folder) for role, folder in job.parents.items() if role.startswith("teacher/")],
            corpus=models.vocabulary_corpus(job, data, config.student),
        )  # fmt: skip
        models.record_training(job, trained)
    else:
        log.info("training on gold labels only: %s labelled texts, no teacher, no unlabelled texts", f"{len(labelled):,}")
        trained = models.train(job, config.student, None, data, examples, held_out)
    models.score_and_describe(job, trained, data, tests, len(labelled) + int(job.metrics["data/unlabelled"]))
