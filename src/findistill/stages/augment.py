"""`stage=augment`: new training texts, made from the labelled ones and filtered.

Needs labelled texts, and a teacher's errors on texts that it was not fitted to. An LLM writes new labelled texts like those
errors (`generate`), says the errors differently (`rephrase`), varies any text while its sentiment stays (`vary`), and writes
unlabelled texts like the errors (`similar`); `words` replaces words without an LLM (Thomas 2024, data augmentation; Jiao et
al. 2020, section 4.1). What is malformed, known already, close to a validation or test text, or relabelled otherwise goes.

Leaves the artifact `augment`: `augmented.parquet` with the provenance of every row, `dropped.parquet` with the reason for
every other one, `prompts.json`, `summary.json`. `stage=teacher` and `stage=student` train on the rows with `augment.use=true`.

Pace and budget of the LLM are those of `annotate`, its `dry_run` and `show_prompt` included.
"""

import hashlib
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findistill.errors import UserError
from findistill.runs import job as jobs
from findistill.runs.files import read_json, replacing, write_json
from findistill.runs.store import digest
from findistill.runs.weights import locate
from findistill.settings.compose import plain, with_overrides
from findistill.stages import inputs
from findistill.stages.training import learning, of_teacher

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from findistill.data import TextData
    from findistill.data.labels import LabelSet
    from findistill.data.screening import Screening
    from findistill.llm.writing import Order
    from findistill.runs.job import Job
    from findistill.settings.schema import Config

log = logging.getLogger(__name__)

# Test sets of `evaluate.also` are kept out too.
READS = ("data", "llm", "prompt", "shots", "annotate", "augment", "teacher", "trainer", "evaluate")
USED = ("llm", "prompt", "shots", "annotate", "augment", "teacher")  # what a job that trains on the rows reads for them

WRITTEN = ("generate", "rephrase", "vary", "similar")  # by an LLM
OF_ERRORS = ("generate", "rephrase", "similar")  # start from what the teacher gets wrong

TestSets = Mapping[str, "tuple[pd.DataFrame, LabelSet]"]


def run(job: "Job") -> None:
    data = inputs.dataset(job)
    folder = artifact(job, data, inputs.test_sets(job, data))
    found = read_json(folder / "summary.json")
    job.metrics |= {name: float(value) for name, value in found.items() if value is not None}
    log.info(
        "%s new texts, %s of them labelled, of %s made: %s", f"{found['augment/kept']:,}",
        f"{found['augment/labelled']:,}", f"{found['augment/made']:,}", folder / "augmented.parquet",
    )  # fmt: skip
    log.info("run folder: %s", job.folder)


def augmented(job: "Job", data: "TextData", tests: TestSets) -> "pd.DataFrame":
    """The new rows for a job that trains on them: the canonical columns, `label` None in the unlabelled tier.

    No rows where `augment.use` is off.
    """
    import pandas as pd

    from findistill.data.texts import COLUMNS

    if not job.config.augment.use:
        return pd.DataFrame(columns=list(COLUMNS), dtype=object)
    rows = pd.read_parquet(artifact(job, data, tests) / "augmented.parquet")[list(COLUMNS)].astype(object)
    return rows.where(rows.notna(), None)


def artifact(job: "Job", data: "TextData", tests: TestSets) -> Path:
    """The folder of the new texts, made if it is not there."""
    from findistill.llm.annotate import annotation_key

    config, rows = job.config, _labelled(job, data, tests)
    held = {"validation": data.split("validation")["text"].tolist()}
    held |= {name: frame["text"].tolist() for name, (frame, _) in tests.items()}
    outside = ("name", "use", "teacher", "folds")  # the last two are in the teacher's own key
    settings = {name: value for name, value in plain(config.augment).items() if name not in outside}
    asks = annotation_key(config)
    key = {
        "settings": settings,
        "labels": list(data.labels.names),
        "rows": digest(rows[["id", "text", "label"]].to_numpy().tolist(), 16),
        "training": inputs.texts_hash(data.split("train", "pool")),
        "held": digest(held, 16),
        "llm": [asks["llm"], asks["prompt"]] if set(WRITTEN) & set(settings["methods"]) else None,
        "votes": [asks, config.shots.source, list(config.annotate.members)] if settings["relabel"] == "llm" else None,
        "teacher": _teacher_key(config) if _needs_teacher(config) else None,
    }

    def make(folder: Path) -> None:
        # The time that artifacts take inside is a part of this one's: it is not to be counted twice.
        _make(replace(job, metrics={}), data, rows, held, folder)

    return job.artifact("augment", key, make)


def preview(config: "Config") -> None:
    """Print a filled prompt of each kind, what writing would ask and cost, or both, without asking anything.

    Only the teacher's errors tell how many texts are asked for, so they are found first, and kept.
    """
    from findistill.llm import writing

    with jobs.aside(config) as job:
        data = inputs.dataset(job)
        rows, _ = _judged(job, data, _labelled(job, data, inputs.test_sets(job, data)))
        orders = _orders(config, _sources(config, rows), rows, data.labels)
        if config.annotate.show_prompt:
            for order in orders:
                sys.stdout.write(f"{order.method}, {order.label or 'no label'}\n{writing.shown(order)}\n\n")
        if config.annotate.dry_run:
            sys.stdout.write(f"{config.llm.name}: {writing.estimate(orders, config, _journal(job))}\n")


def _labelled(job: "Job", data: "TextData", tests: TestSets) -> "pd.DataFrame":
    """The rows that new texts are made from."""
    rows = inputs.drop_tested(inputs.supervised(data), dict(tests))
    if rows["label"].nunique() < 2:
        raise UserError(f"new texts are made from texts with human labels, and data={job.config.data.name} has none to train on")
    return rows


def _make(job: "Job", data: "TextData", rows: "pd.DataFrame", held: dict[str, list[str]], folder: Path) -> None:
    from findistill.data.screening import Screening

    rows, teacher = _judged(job, data, rows)
    sources = _sources(job.config, rows)
    log.info("new texts from %s", ", ".join(f"{len(part):,} texts by {method}" for method, part in sources.items()))
    made, prompts, summary = _written(job, sources, rows, data.labels)
    summary["augment/made"] = len(made)
    if teacher is not None:
        summary |= {"augment/errors": (wrong := int((rows["predicted"] != rows["label"]).sum()))}
        summary["augment/error_share"] = wrong / len(rows)

    screening = Screening(made)
    screening.well_formed(job.config.augment.min_words, job.config.augment.max_words)
    screening.far_from(held)
    known = data.split("train", "pool")["text"].tolist()
    screening.new(dict(zip(rows["id"], rows["text"], strict=True)), known, job.config.augment.similarity)
    summary |= _relabel(job, data, screening, rows, teacher)
    _leave(folder, screening, prompts, summary)


# -- the teacher's errors ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Teacher:
    """What a teacher says of the labelled rows without having seen them (id, fold, predicted), and its models.

    Model `i` was not fitted to the rows of fold `i`. A teacher that is named is one model, and every row has fold 0.
    """

    told: "pd.DataFrame"
    models: list[str]


def _needs_teacher(config: "Config") -> bool:
    return bool(set(OF_ERRORS) & set(config.augment.methods)) or config.augment.relabel == "teacher"


def _teacher_key(config: "Config") -> Any:
    named = config.augment.teacher
    if named:
        weights = Path(locate(named)) / "model.safetensors"
        if not weights.is_file():
            return named
        with weights.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    return [plain(config.teacher), learning(of_teacher(config)), config.augment.folds]


def _teacher(job: "Job", data: "TextData", rows: "pd.DataFrame") -> Teacher:
    """The named model's predictions, or those of models that were fitted to the other folds (an artifact)."""
    import pandas as pd

    from findistill.learning import folds
    from findistill.learning.fit import predict

    settings, trainer = job.config.augment, of_teacher(job.config)
    if settings.teacher:
        told = predict(locate(settings.teacher), rows["text"].tolist(), trainer, tokens_cache=job.store.root / "tokens")
        return Teacher(rows[["id"]].assign(fold=0, predicted=told.predicted), [locate(settings.teacher)])
    held = data.split("validation")
    key = {
        "rows": digest(rows[["id", "text", "label"]].to_numpy().tolist(), 16),
        "validation": digest(held[["id", "text", "label"]].to_numpy().tolist(), 16),
        "labels": list(data.labels.names),
        "teacher": _teacher_key(job.config),
        "seed": settings.seed,
    }

    def make(folder: Path) -> None:
        folds.cross_fit(
            job.config.teacher, trainer, data.labels, rows, held, settings.folds, folder,
            seed=settings.seed, tokens_cache=job.store.root / "tokens",
        )  # fmt: skip

    folder = job.artifact("folds", key, make, resumable=True)
    return Teacher(pd.read_parquet(folder / folds.FILE), [str(folds.model(folder, i)) for i in range(settings.folds)])


def _judged(job: "Job", data: "TextData", rows: "pd.DataFrame") -> "tuple[pd.DataFrame, Teacher | None]":
    """The rows with the teacher's `fold` and `predicted`, where any method or filter needs them."""
    if not _needs_teacher(job.config):
        return rows, None
    teacher = _teacher(job, data, rows)
    return rows.merge(teacher.told[["id", "fold", "predicted"]], on="id", validate="one_to_one"), teacher


def _sources(config: "Config", rows: "pd.DataFrame") -> "dict[str, pd.DataFrame]":
    """By method, the rows it starts from: the teacher's errors, or all."""
    settings = config.augment
    sources = {}
    for method in settings.methods:
        part = rows[rows["predicted"] != rows["label"]] if method in OF_ERRORS else rows
        if settings.limit is not None:
            part = part.sample(frac=1, random_state=settings.seed).head(settings.limit).sort_index()
        sources[method] = part.reset_index(drop=True)
    return sources


# -- making --------------------------------------------------------------------------------------------------------------


def _orders(config: "Config", sources: "dict[str, pd.DataFrame]", rows: "pd.DataFrame", labels: "LabelSet") -> "list[Order]":
    from findistill.llm import writing

    asked = {method: part for method, part in sources.items() if method in WRITTEN}
    return writing.orders(asked, rows, plain(config.augment.per_text), labels, config)


def _journal(job: "Job") -> Path:
    """The file of all texts that the llm ever wrote in this store."""
    from findistill.llm.writing import journal_name

    return job.store.root / "answers" / journal_name(job.config)


def _written(
    job: "Job", sources: "dict[str, pd.DataFrame]", rows: "pd.DataFrame", labels: "LabelSet"
) -> "tuple[pd.DataFrame, dict[str, str], dict[str, Any]]":
    """All new texts with where they come from, the prompts by hash, and what making them took."""
    import pandas as pd

    from findistill.llm import writing

    config, settings = job.config, job.config.augment
    numbers = plain(settings.per_text)
    orders = _orders(config, sources, rows, labels)
    told = writing.write(orders, config, _journal(job))
    found = [{**row, "model": config.llm.model} for row in told.rows]
    if "words" in sources:
        from findistill.learning.words import WordSwaps

        part = sources["words"]
        swaps = WordSwaps(settings.masked_lm, settings.replace, settings.candidates)
        copies = swaps.copies(list(zip(part["id"], part["text"], strict=True)), numbers["words"], settings.seed)
        model = settings.masked_lm or "embedded:minilm_l6 (word vectors)"
        found += [
            {"method": "words", "source_id": source, "sample": number, "text": text, "label": label, "model": model}
            for source, label, of_source in zip(part["id"], part["label"], copies, strict=True)
            for number, text in enumerate(of_source)
        ]
    columns = ["method", "source_id", "sample", "text", "label", "writer_label", "model", "prompt", "echo"]
    frame = pd.DataFrame(found, columns=columns).astype(object)
    frame = frame.where(frame.notna(), None).astype({"sample": int})
    frame.insert(
        0, "id", [":".join(map(str, parts)) for parts in zip(frame["method"], frame["source_id"], frame["sample"], strict=True)]
    )
    summary: dict[str, Any] = {f"augment/made_{method}": int((frame["method"] == method).sum()) for method in sources}
    if orders:
        summary |= {f"augment/{name}": value for name, value in told.totals.items()} | {"cost/usd": told.cost_usd}
    return frame, told.prompts, summary


# -- relabelling ---------------------------------------------------------------------------------------------------------


def _relabel(
    job: "Job", data: "TextData", screening: "Screening", rows: "pd.DataFrame", teacher: Teacher | None
) -> dict[str, int]:
    """Drop rows that are not given the label asked for in every round of relabelling (Thomas 2024: relabelled until stable).

    Unlabelled rows pass. Adds `relabels`, the rounds a row passed, and `agreement`, the mean share of the votes (or the
    mean probability) that its label had in them. Gives the rows dropped in each round.
    """
    import numpy as np

    settings = job.config.augment
    screening.left = screening.left.assign(relabels=0, agreement=0.0)
    rounds = settings.rounds
    if settings.relabel == "none":
        rounds = 0
    elif settings.relabel == "teacher":
        assert teacher is not None
        rounds = min(rounds, max(1, len(teacher.models) - 1))
        fold_of = dict(zip(rows["id"], rows["fold"], strict=True))
        screening.left = screening.left.assign(fold=screening.left["source_id"].map(fold_of))
    lost: dict[str, int] = {}
    for number in range(rounds):
        labelled = screening.left["label"].notna().to_numpy()
        part = screening.left[labelled].reset_index(drop=True)
        if part.empty:
            break
        said, share = _votes(job, data, part, number) if settings.relabel == "llm" else _says(job, part, number, teacher)
        wrong = np.zeros(len(labelled), bool)
        wrong[labelled] = [one != label for one, label in zip(said, part["label"], strict=True)]
        screening.left.loc[labelled, "agreement"] += share
        screening.left.loc[labelled, "relabels"] = number + 1
        lost[f"augment/relabel_{number + 1}_dropped"] = int(wrong.sum())
        screening.drop(wrong, "relabelled otherwise")
    mean = screening.left["agreement"] / screening.left["relabels"].where(screening.left["relabels"] > 0)
    screening.left = screening.left.assign(agreement=mean)
    return lost


def _votes(job: "Job", data: "TextData", part: "pd.DataFrame", number: int) -> "tuple[list[str | None], np.ndarray]":
    """What the annotator says, and its share of votes for the label asked for; each round draws other samples."""
    import numpy as np

    drawn = with_overrides(job.config, f"annotate.seed={job.config.annotate.seed + number}", "augment.relabel")
    voted = inputs.annotations(replace(job, config=drawn), data, part[["id", "text", "label"]])
    shares = [row[f"soft_{label}"] for (_, row), label in zip(voted.iterrows(), part["label"], strict=True)]
    return [label if isinstance(label, str) else None for label in voted["label"]], np.array(shares)


def _says(job: "Job", part: "pd.DataFrame", number: int, teacher: Teacher | None) -> "tuple[list[str | None], np.ndarray]":
    """What one of the teacher's models says of each row, and its probability of the label asked for.

    A model that was not fitted to the source got it wrong where it is an error, and would get its copies wrong too: those
    that know the source are asked, another one in each round.
    """
    import numpy as np

    from findistill.learning.fit import predict

    assert teacher is not None
    asked = (part["fold"].to_numpy(int) + 1 + number) % len(teacher.models)
    said: list[str | None] = [None] * len(part)
    share = np.zeros(len(part))
    for model in np.unique(asked).tolist():
        places = np.flatnonzero(asked == model)
        told = predict(teacher.models[model], part["text"].iloc[places].tolist(), of_teacher(job.config))
        for row, place in enumerate(places.tolist()):
            said[place] = told.predicted[row]
            label = part["label"].iloc[place]
            share[place] = told.probabilities[row, told.labels.index(label)] if label in told.labels else 0.0
    return said, share


# -- leaving -------------------------------------------------------------------------------------------------------------


def _leave(folder: Path, screening: "Screening", prompts: dict[str, str], summary: dict[str, Any]) -> None:
    import pandas as pd

    made = screening.left.drop(columns=["echo", "fold"], errors="ignore").assign(split="train", date=None, source="augment")
    first = ["id", "text", "label", "split", "date", "source", "method", "source_id", "model", "prompt", "writer_label"]
    made = made[[*first, *(name for name in made.columns if name not in first)]]
    gone = pd.concat(screening.gone, ignore_index=True)[["id", "text", "label", "method", "source_id", "reason"]]
    for name, frame in (("augmented", made), ("dropped", gone)):
        with replacing(folder / f"{name}.parquet") as aside:
            frame.to_parquet(aside, index=False)
    reasons = gone["reason"].value_counts()
    summary |= {f"augment/dropped_{why.replace(' ', '_')}": int(count) for why, count in zip(reasons.index, reasons, strict=True)}
    summary |= {f"augment/kept_{method}": int((made["method"] == method).sum()) for method in dict.fromkeys(made["method"])}
    labelled = int(made["label"].notna().sum())
    summary |= {"augment/kept": len(made), "augment/labelled": labelled, "augment/unlabelled": len(made) - labelled}
    write_json(folder / "prompts.json", prompts)
    write_json(folder / "summary.json", summary)
    log.info("dropped: %s", ", ".join(f"{count} {why}" for why, count in zip(reasons.index, reasons, strict=True)) or "none")
