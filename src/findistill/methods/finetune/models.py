"""Encoder training: intermediate models (pretrained on the domain, teacher), and what all training stages share."""

import logging
from dataclasses import replace
from typing import cast

import pandas as pd
from omegaconf import OmegaConf

from findistill.config.fields import declares
from findistill.core.files import read_json, write_json
from findistill.core.job import Job
from findistill.core.store import Work
from findistill.data.texts import TextData
from findistill.methods import rows as reading
from findistill.methods import scoring
from findistill.methods.finetune.card import write_classifier_card
from findistill.methods.provenance import provenance
from findistill.methods.rows import TestSets
from findistill.models.config import Encoder
from findistill.training.config import Distill
from findistill.training.loop import Session
from findistill.training.pretraining import pretrain
from findistill.training.trainer import Examples, Trained, fit

log = logging.getLogger(__name__)


def pretrain_encoder(work: Work) -> None:
    """Masked-language pretraining on at most `pretrain.limit` texts of `pretrain.source`, none of them from a test set."""
    encoder, data = work.config[work.step.role], reading.dataset(work, "texts")
    rows = reading.drop_test_overlap(data.split("train", "validation", "pool"), reading.test_sets(work, required=False))
    texts = cast(list[str], reading.draw(rows, encoder.pretrain.limit, seed=0)["text"].tolist())
    log.info("pretraining %s on %s texts of %s", encoder.name, f"{len(texts):,}", data.card.name)
    scores = pretrain(encoder, texts, Session(work.config.trainer, work.folder, tokens_cache=work.tokens))
    write_json(work.folder / "pretrain.json", scores)
    write_json(work.folder / "texts.json", texts)


def starting_point(work: Work, encoder: Encoder) -> Encoder:
    """The encoder to train: as configured, or with its pretrained weights if the step has such a parent."""
    folder = work.parents.get("pretrained")
    if folder is None:
        return encoder
    own = cast(Encoder, OmegaConf.to_object(encoder) if OmegaConf.is_config(encoder) else encoder)
    return replace(own, model=str(folder), init="pretrained", layers=None, shape=None)


def vocabulary_corpus(work: Work, data: TextData, encoder: Encoder) -> list[str]:
    """The texts whose word pieces a trimmed vocabulary keeps, besides the training texts."""
    if not encoder.trim_vocabulary:
        return []
    domain = read_json(work.parents["pretrained"] / "texts.json") if "pretrained" in work.parents else []
    return [*data.split("train", "pool")["text"], *domain]


def training_rows(
    work: Work, data: TextData, tests: TestSets, encoder: Encoder | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labelled training rows, including the labelled texts of augmentation, none in a test set; and the validation rows.

    A linear `encoder` is selected by cross-validation, so it is trained on the validation rows, too.
    """
    rows, validation = reading.supervision(work, data, tests)
    new = reading.augmented_rows(work)
    new = reading.drop_test_overlap(new[new["label"].notna()], tests) if len(new) else new
    if encoder is not None and declares(encoder, "linear"):
        return reading.concat_rows([rows, validation, new]), validation.head(0)
    return reading.concat_rows([rows, new]), validation


def train_teacher(work: Work) -> None:
    """Train a model on human labels that the jobs of a sweep share: the students' teacher, or a student without one."""
    encoder, data = work.config[work.step.role], reading.dataset(work)
    rows, held_out = training_rows(work, data, reading.test_sets(work), encoder)
    reading.check_classes(rows, data, f"the {work.step.role} {encoder.name}")
    log.info("training the %s %s on %s human labels", work.step.role, encoder.name, f"{len(rows):,}")
    examples, validation = (Examples.from_frame(part, data.labels) for part in (rows, held_out))
    trained = fit(
        starting_point(work, encoder), None, data.labels, examples, validation,
        Session(work.config.trainer, work.folder, work.step.seed, tokens_cache=work.tokens),
        vocabulary_corpus(work, data, encoder),
    )  # fmt: skip
    write_json(work.folder / "history.json", trained.history)
    write_json(work.folder / "training.json", {"labels": len(rows), "train_s": trained.train_s, "cpu_s": trained.cpu_s})


def train(job: Job, encoder: Encoder, distill: Distill | None, data: TextData, rows: Examples, validation: Examples) -> Trained:
    """Train `encoder` and write `model/` to the run folder; sizes and times go into the metrics."""
    corpus = vocabulary_corpus(job, data, encoder)
    trained = fit(starting_point(job, encoder), distill, data.labels, rows, validation, session(job), corpus)
    record_training(job, trained)
    return trained


def session(job: Job) -> Session:
    """The session for training a job's own model."""
    config, loggers = job.config, job.tracker.lightning_loggers()
    return Session(config.trainer, job.folder, config.seed, loggers, config.callbacks, job.tokens)


def record_training(job: Job, trained: Trained) -> None:
    """Add sizes, times and validation scores to the metrics."""
    if "pretrained" in job.parents:
        scores = read_json(job.parents["pretrained"] / "pretrain.json")
        job.metrics |= {f"pretrain/{name}": value for name, value in scores.items()}
    job.metrics |= {"time/train_s": trained.train_s, "time/cpu_s": trained.cpu_s, "train/best_epoch": trained.best_epoch}
    job.metrics |= {"model/parameters": trained.parameters, "model/mb": trained.megabytes}
    if trained.history:
        best = trained.history[trained.best_epoch - 1]
        job.metrics |= {name: value for name, value in best.items() if name.startswith("val/")}


def score_and_describe(job: Job, trained: Trained, data: TextData, tests: TestSets, texts: int) -> None:
    """Score the trained model on every test set, then write its card with the scores."""
    scoring.score(job, trained.model_dir, tests, trained.history)
    write_classifier_card(trained.model_dir, job.whole, data.labels.names, texts, provenance(job), job.metrics)
    scoring.summary(job)
