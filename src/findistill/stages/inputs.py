"""What stages ask for: the data set, the annotations. Each is an artifact, made when the first stage needs it."""

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from findistill.errors import UserError
from findistill.runs.store import digest
from findistill.settings.schema import TeacherDistill

if TYPE_CHECKING:
    import pandas as pd

    from findistill.data import TextData
    from findistill.data.labels import LabelSet
    from findistill.runs.job import Job
    from findistill.settings.schema import Config, Data

log = logging.getLogger(__name__)


def dataset(job: "Job", config: "Data | None" = None) -> "TextData":
    """The data set of `config` (default: the job's own `data` section), read and split once."""
    from findistill.data import fingerprint, load
    from findistill.data.stored import read_folder, write_folder

    config = job.config.data if config is None else config

    def make(folder: Path) -> None:
        write_folder(load(config), folder)

    data = read_folder(job.artifact("data", {"fingerprint": fingerprint(config)}, make))
    _introduce(data.card.text())
    return data


@cache
def _introduce(card: str) -> None:
    """Print a data set's card, licence included, the first time this process reads it."""
    log.info("%s", card)


def named_dataset(job: "Job", words: str) -> "TextData":
    """A data set by the name of its configuration, with settings behind it: `fiqa_news classes=2`."""
    from findistill.settings.compose import data_config

    return dataset(job, data_config(words))


def texts_hash(frame: "pd.DataFrame") -> str:
    return digest(frame[["id", "text"]].to_numpy().tolist(), 16)


def labelled_pool(job: "Job", data: "TextData") -> "pd.DataFrame":
    """The labelled rows that demonstrations and the neighbour vote may use, never a test row.

    They come from `shots.source` where it is set, else from the data's `pool` rows, else from its training rows.
    """
    if job.config.shots.source:
        data = named_dataset(job, job.config.shots.source)
    pool = data.split("pool")
    if not len(pool):
        pool = data.split("train")
    return pool[pool["label"].notna()].reset_index(drop=True)


def unlabelled(job: "Job", data: "TextData") -> "pd.DataFrame":
    """The rows to label: training and validation rows, at most `annotate.limit`, drawn by `data.seed`.

    A larger limit keeps the rows of a smaller one. Gold labels, where the source has them, only measure the annotator.
    """
    rows = data.split("train", "validation")
    limit = job.config.annotate.limit
    if limit is not None and limit < len(rows):
        rows = rows.sample(frac=1, random_state=job.config.data.seed).head(limit).sort_index().reset_index(drop=True)
    return rows


def journal(job: "Job") -> Path:
    """The file of all answers that were ever given in this store to what this job may ask."""
    from findistill.llm.annotate import journal_name

    return job.store.root / "answers" / journal_name(job.config)


def annotators(config: "Config") -> "list[Config]":
    """The configuration of each annotator: one for each of `annotate.members`, or the job's own alone."""
    from findistill.settings.compose import with_overrides

    if not config.annotate.members:
        return [config]
    return [with_overrides(config, f"{words} annotate.members=[]", "annotate.members") for words in config.annotate.members]


def annotations(job: "Job", data: "TextData", rows: "pd.DataFrame") -> "pd.DataFrame":
    """The votes of the configured annotators on `rows`: an artifact that every threshold, objective and seed shares."""
    import pandas as pd

    from findistill.llm.aggregate import aggregate

    members = annotators(job.config)
    folders = [_annotated(job, data, rows, member) for member in members]
    if len(folders) == 1:
        return pd.read_parquet(folders[0] / "annotations.parquet")
    how = job.config.annotate.combine
    key = {"members": [folder.name for folder in folders], "combine": how, "labels": list(data.labels.names)}

    def make(folder: Path) -> None:
        aggregate(folders, [member.llm.name + " " + member.prompt.name for member in members], data.labels, how, folder)

    return pd.read_parquet(job.artifact("annotate", key, make) / "annotations.parquet")


def _annotated(job: "Job", data: "TextData", rows: "pd.DataFrame", config: "Config") -> Path:
    """The artifact of one annotator."""
    from findistill.llm.annotate import annotate, annotation_key
    from findistill.stages.tuning import with_adapter

    config = with_adapter(job, data, config)
    asking = replace(job, config=config)
    pool = labelled_pool(asking, data)
    # Demonstrations and calibration both read the pool.
    reads_pool = bool(config.shots.k) or config.annotate.calibration in ("pool", "auto")
    key: dict[str, Any] = {
        "settings": annotation_key(config),
        "labels": list(data.labels.names),
        "texts": texts_hash(rows),
        "pool": digest(pool[["id", "text", "label"]].to_numpy().tolist(), 16) if reads_pool else None,
    }

    def make(folder: Path) -> None:
        log.info("annotating %s texts of %s with %s", f"{len(rows):,}", config.data.name, config.llm.name)
        annotate(rows, pool, data.labels, config, folder, journal=journal(asking))

    return job.artifact("annotate", key, make, resumable=True)


def votes(job: "Job", data: "TextData", new: "pd.DataFrame") -> "pd.DataFrame":
    """Who voted, as `distill.votes` says: the LLM, or the source's own annotators. One row a text, with its `split`.

    The LLM votes on the texts of `new`, too, which are for training; their own labels are no gold labels, and left out.
    """
    import pandas as pd

    config = job.config
    if config.distill.votes == "human":
        rows = data.human_votes("train", "validation")
    else:
        rows = unlabelled(job, data)
        if len(new):
            rows = pd.concat([rows, new.assign(label=None)], ignore_index=True)
        rows = annotations(job, data, rows)
    rows = rows.merge(data.frame[["id", "split"]], on="id", how="left", validate="one_to_one")
    rows = rows[rows["label"].notna()].reset_index(drop=True)
    if not (rows["split"] == "validation").any():
        held = rows.sample(frac=config.data.validation, random_state=config.data.seed).index
        rows.loc[held, "split"] = "validation"
    return rows


def test_sets(job: "Job", data: "TextData") -> "dict[str, tuple[pd.DataFrame, LabelSet]]":
    """The human-labelled test rows by metric prefix: `test` for the data's own, a name for each of `evaluate.also`.

    Where the data has no test rows of its own, the first of `evaluate.also` is the test set.

    Raises:
        UserError: there is no labelled test set at all.
    """
    sets = {}
    own = data.split("test")
    if len(own):
        sets["test"] = (own, data.labels)
    for words in job.config.evaluate.also:
        other = named_dataset(job, words)
        sets[words.split()[0] if sets else "test"] = (other.split("test"), other.labels)
    if not sets:
        raise UserError(
            f"data={job.config.data.name} has no labelled test rows; name a labelled set to test on, "
            "for example evaluate.also=[phrasebank]"
        )
    return sets


def drop_tested(rows: "pd.DataFrame", tests: "dict[str, tuple[pd.DataFrame, LabelSet]]") -> "pd.DataFrame":
    """Remove training rows whose normalised text stands in any test set."""
    from findistill.data.normalise import normalise

    tested = {normalise(text) for frame, _ in tests.values() for text in frame["text"]}
    leaked = rows["text"].map(normalise).isin(tested)
    if leaked.any():
        log.info("%d training texts stand in a test set and are left out", int(leaked.sum()))
    return rows[~leaked].reset_index(drop=True)


def supervised(data: "TextData") -> "pd.DataFrame":
    """The rows whose human labels a teacher may learn from.

    With a pool set aside, the other labels count as hidden, and the pool is all the supervision there is.
    """
    rows = data.split("pool")
    if not len(rows):
        rows = data.split("train")
    return rows[rows["label"].notna()].reset_index(drop=True)


def transfer_texts(
    job: "Job",
    data: "TextData",
    labelled: "pd.DataFrame",
    tests: "dict[str, tuple[pd.DataFrame, LabelSet]]",
    new: "pd.DataFrame",
) -> "pd.DataFrame":
    """Texts to distil on besides the `labelled` ones: the data's other training texts, `new` ones, those of `distill.pool`.

    None of them stands in a test set or among the validation rows, and each text comes once.
    """
    import pandas as pd

    from findistill.data.normalise import duplicate_key

    rows = [data.split("train"), new]
    pool = cast(TeacherDistill, job.config.distill).pool
    if pool:
        rows.append(named_dataset(job, pool).split("train", "pool"))
    texts = pd.concat([each[["id", "text"]] for each in rows], ignore_index=True)
    texts = drop_tested(texts, {**tests, "validation": (data.split("validation"), data.labels)})
    keys = texts["text"].map(duplicate_key)
    known = keys.isin(set(labelled["text"].map(duplicate_key))) | keys.duplicated()
    return texts[~known].reset_index(drop=True)
