"""The training step that teacher and student share: pretraining if asked for, fit, sizes and times, model card."""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf

from findistill.runs.files import read_json, write_json, write_whole
from findistill.runs.store import digest
from findistill.runs.weights import locate
from findistill.settings.compose import plain
from findistill.settings.schema import Distill, Encoder, TeacherDistill, Trainer, unpaced
from findistill.stages import inputs

if TYPE_CHECKING:
    import pandas as pd

    from findistill.data import TextData
    from findistill.learning.fit import Examples, Trained
    from findistill.runs.job import Job
    from findistill.settings.schema import Config

log = logging.getLogger(__name__)

# What of `trainer` is about learning from labels, and nothing to pretraining.
OF_LABELS = ("max_epochs", "learning_rate", "warmup", "schedule", "layer_decay", "unfreeze", "monitor", "patience")
BEGINNING = ("model", "init", "layers", "shape", "pretrain", "batch_size", "max_length")  # what of an encoder is


def train(
    job: "Job", encoder: Encoder, distill: Distill | None, data: "TextData", rows: "Examples", held: "Examples"
) -> "Trained":
    """Fit `encoder` and leave `model/`, with its card, in the run folder; sizes and times go into the metrics."""
    from findistill.learning.fit import fit

    config = job.config
    unlabelled = domain_texts(job, encoder, data)
    trained = fit(
        pretrained(job, encoder, unlabelled, config.trainer), distill, config.trainer, data.labels, rows, held,
        seed=config.seed, folder=job.folder, loggers=job.tracker.lightning_loggers(),
        tokens_cache=job.store.root / "tokens",
        corpus=corpus(data, encoder, unlabelled),
    )  # fmt: skip
    leave(job, trained, data, len(rows))
    return trained


def leave(job: "Job", trained: "Trained", data: "TextData", texts: int) -> None:
    """Put sizes and times into the metrics, and the card beside the model that learnt from so many texts."""
    from findistill.runs import hardware
    from findistill.stages.card import model_card

    job.metrics |= {
        "time/train_s": trained.train_s,
        "time/cpu_s": trained.cpu_s,
        "model/parameters": trained.parameters,
        "model/mb": trained.megabytes,
        "train/best_epoch": trained.best_epoch,
    }
    best = trained.history[trained.best_epoch - 1]
    job.metrics |= {name: value for name, value in best.items() if name.startswith("val/")}
    write_whole(
        trained.model_dir / "README.md",
        model_card(job.config, data.labels, texts, hardware.describe(), data.card.licence),
    )


def domain_texts(job: "Job", encoder: Encoder, data: "TextData") -> list[str]:
    """The texts of `pretrain.source`, none that stands in a test set; at most `pretrain.limit`."""
    if not encoder.pretrain.source:
        return []
    source = inputs.named_dataset(job, encoder.pretrain.source)
    rows = inputs.drop_tested(source.split("train", "validation", "pool"), inputs.test_sets(job, data))
    limit = encoder.pretrain.limit
    if limit is not None and limit < len(rows):
        rows = rows.sample(frac=1, random_state=0).head(limit)  # a larger limit keeps the rows of a smaller one
    return rows["text"].tolist()


def of_teacher(config: "Config") -> Trainer:
    """How a teacher is trained on the way: epochs, batch, rate and length are its own, those of `trainer` may be a student's."""
    own = dict.fromkeys(("max_epochs", "batch_size", "learning_rate", "max_length", "patience"))
    return Trainer(**{**plain(config.trainer), **own})


def learning(trainer: Trainer) -> dict[str, Any]:
    """What of the trainer's settings changes weights."""
    return cast(dict[str, Any], unpaced({"trainer": plain(trainer)})["trainer"])


def corpus(data: "TextData", encoder: Encoder, unlabelled: list[str]) -> list[str]:
    """The texts whose word pieces a trimmed vocabulary keeps, besides those trained on."""
    return [*data.split("train", "pool")["text"], *unlabelled] if encoder.trim_vocabulary else []


def pretrained(job: "Job", encoder: Encoder, texts: list[str], trainer: Trainer) -> Encoder:
    """The encoder to fit: as it is, or pretrained on `texts` (its `pretrain.source`), an artifact that all seeds share."""
    if not encoder.pretrain.source:
        return encoder
    settings = plain(encoder)
    key = {
        "start": {name: settings[name] for name in BEGINNING},
        "weights": weights_hash(encoder.model),
        "trainer": {name: value for name, value in learning(trainer).items() if name not in OF_LABELS},
        "texts": digest(texts, 16),
    }

    def make(folder: Path) -> None:
        from findistill.learning.pretrain import pretrain

        log.info("pretraining %s on %s texts of %s", encoder.name, f"{len(texts):,}", encoder.pretrain.source)
        found = pretrain(encoder, trainer, texts, folder, tokens_cache=job.store.root / "tokens")
        write_json(folder / "pretrain.json", found)

    folder = job.artifact("pretrain", key, make)
    job.metrics |= {f"pretrain/{name}": value for name, value in read_json(folder / "pretrain.json").items()}
    settled = cast(Encoder, OmegaConf.to_object(encoder) if OmegaConf.is_config(encoder) else encoder)
    return replace(settled, model=str(folder), init="pretrained", layers=None, shape=None)


def weights_hash(model: str) -> str | None:
    """Of the files of a model on this machine; a hub id stands for itself."""
    found = sorted(Path(locate(model)).glob("*.safetensors"))
    if not found:
        return None
    whole = hashlib.sha256()
    for path in found:
        with path.open("rb") as handle:
            whole.update(hashlib.file_digest(handle, "sha256").digest())
    return whole.hexdigest()


def teacher_model(job: "Job", data: "TextData", rows: "pd.DataFrame") -> str:
    """Where the teacher is: what `distill.teacher` names, or an artifact trained on `rows` as `teacher` says.

    Its seed is 0, so that every student of a sweep has the same teacher.
    """
    from findistill.data import fingerprint
    from findistill.learning.fit import Examples, fit

    config = job.config
    if named := cast(TeacherDistill, config.distill).teacher:
        return named
    trainer = of_teacher(config)
    unlabelled = domain_texts(job, config.teacher, data)
    encoder = pretrained(job, config.teacher, unlabelled, trainer)
    key = {
        "data": fingerprint(config.data),
        "teacher": plain(config.teacher),
        "pretrained": digest(unlabelled, 16),
        "trainer": learning(trainer),
        "rows": inputs.texts_hash(rows),
        "seed": 0,
    }

    def make(folder: Path) -> None:
        log.info("training the teacher %s on %s human labels", config.teacher.name, f"{len(rows):,}")
        held = Examples.from_frame(data.split("validation"), data.labels)
        trained = fit(
            encoder, None, trainer, data.labels, Examples.from_frame(rows, data.labels), held,
            seed=0, folder=folder, loggers=[], tokens_cache=job.store.root / "tokens", corpus=corpus(data, encoder, unlabelled),
        )  # fmt: skip
        write_json(folder / "history.json", trained.history)

    return str(job.artifact("teacher", key, make))
