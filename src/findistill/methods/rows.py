"""Which rows a step works on, read from its parents. The leakage rules are here: no model is trained on a test text."""

import logging
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from findistill.core.store import Work
from findistill.data.labels import LabelSet
from findistill.data.serialization import read_folder
from findistill.data.similarity import NEAR, near_duplicates
from findistill.data.text_key import text_key
from findistill.data.texts import COLUMNS, TextData, is_labelled
from findistill.errors import UserError
from findistill.methods.datasets import ALSO, DATA
from findistill.models.label_names import example, match_labels

log = logging.getLogger(__name__)

TestSets = Mapping[str, tuple[pd.DataFrame, LabelSet]]


class OwnTestSets(dict[str, tuple[pd.DataFrame, LabelSet]]):
    """The test sets of a job, and whether near-duplicates of test texts are trained on (`data.near_duplicates`)."""

    def __init__(self, near_duplicates: str) -> None:
        super().__init__()
        self.near_duplicates = near_duplicates


def dataset(work: Work, role: str = DATA) -> TextData:
    """The data set in this role; its card, including the licence, is logged once per process."""
    data = read_folder(work.parents[role])
    _say(data.card.text())
    return data


@cache
def _say(line: str) -> None:
    """Log a line once per process."""
    log.info("%s", line)


def test_sets(work: Work, *, required: bool = True) -> OwnTestSets:
    """The human-labelled test rows by metric prefix: `test` for the data's own, a data set's name for each further one.

    If the data has no labelled test rows, the first further set becomes `test`.

    Raises:
        UserError: there is no labelled test set, and one is `required`.
    """
    data = dataset(work)
    sets = OwnTestSets(work.step.whole.data.near_duplicates)  # part of the key of the parent `data`
    rows = data.split("test")
    if is_labelled(rows).any():  # test rows of a split by date may all be unlabelled
        sets["test"] = (rows, data.labels)
    for role in (role for role in work.parents if role.startswith(f"{ALSO}/")):
        other = dataset(work, role)
        sets[other.card.name if sets else "test"] = (other.split("test"), other.labels)
    if not sets and required:
        raise UserError(
            f"data={data.card.name} has no labelled test rows; name a labelled set to test on, "
            "for example evaluate.also=[phrasebank]"
        )
    return sets


def check_test_sets(work: Work) -> None:
    """`Step.check` of stages whose models predict the data's labels. Raises UserError if a test set has other labels (see
    `match_labels`), or if there is no test set."""
    labels = dataset(work).labels
    for prefix, (_, label_set) in test_sets(work).items():
        try:
            match_labels(
                labels.names, label_set.names, model=f"a model tested on {prefix}", label_map=work.config.evaluate.label_map
            )
        except UserError as error:
            raise UserError(
                f"the test set {prefix} has the labels {', '.join(label_set.names)}; the data's are {', '.join(labels.names)}, "
                f"and a model trained on them predicts no others.\nMap them, for example "
                f"{example(labels.names, label_set.names, 'evaluate.label_map')}, or remove the set from evaluate.also"
            ) from error


def drop_test_overlap(rows: pd.DataFrame, tests: TestSets, what: str = "training") -> pd.DataFrame:
    """Remove rows whose text (by `text_key`) is in a test set; in `OwnTestSets`, count or drop near-duplicates too.

    Args:
        what: the rows' purpose, for the log.
    """
    keys = rows["text"].map(text_key)
    in_tests = {prefix: set(frame["text"].map(text_key)) for prefix, (frame, _) in tests.items()}
    overlap = keys.isin(set().union(*in_tests.values()))
    if overlap.any():
        _say(f"{int(overlap.sum())} {what} texts are also in a test set; they were removed")
    rows, keys = rows[~overlap], keys[~overlap]
    if isinstance(tests, OwnTestSets):
        near = {prefix: _near(tuple(keys), tuple(sorted(others))) for prefix, others in in_tests.items()}
        if counts := ", ".join(f"{int(each.sum()):,} of {prefix}" for prefix, each in near.items() if each.any()):
            drop = tests.near_duplicates == "drop"
            verb = "they were removed" if drop else "data.near_duplicates=drop removes them"
            _say(f"{what} texts with an edit similarity of {NEAR:g} or more to a test text: {counts}; {verb}")
            rows = rows[~np.logical_or.reduce([*near.values()])] if drop else rows
    return rows.reset_index(drop=True)


@lru_cache(maxsize=8)
def _near(keys: tuple[str, ...], others: tuple[str, ...]) -> np.ndarray:
    """`near_duplicates`, cached for the jobs of a sweep."""
    return near_duplicates(keys, others)


def labelled_rows(data: TextData) -> pd.DataFrame:
    """The rows whose human labels may be trained on or shown in prompts.

    With `data.labelled` set, all other labels count as hidden: these rows are the only supervision.
    """
    pool = data.split("pool")
    rows = pool if len(pool) else data.split("train")
    return rows[is_labelled(rows)].reset_index(drop=True)


def supervision(work: Work, data: TextData, tests: TestSets) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The labelled training rows, none of them in a test set, and the validation rows that choose the epoch.

    With `data.labelled`, all other labels count as hidden, including the validation split's: a share `data.validation` of the
    labelled rows is held out instead.
    """
    settings = work.step.whole.data  # part of the key of the parent `data`
    rows = drop_test_overlap(labelled_rows(data), tests)
    if not len(data.split("pool")):
        return rows, drop_test_overlap(data.split("validation"), tests, "validation")
    held_out = rows.sample(frac=settings.validation, random_state=settings.seed).index
    return rows.drop(held_out).reset_index(drop=True), rows.loc[held_out].reset_index(drop=True)


def check_classes(rows: pd.DataFrame, data: TextData, what: str) -> None:
    """Raise UserError if the labelled rows have fewer than two classes."""
    if (count := rows["label"].nunique()) < 2:
        raise UserError(
            f"{what} needs labels of at least two classes; data={data.card.name} has {count} "
            "among its training rows; check data.label_column and data.test"
        )


def demonstration_pool(work: Work) -> pd.DataFrame:
    """The labelled rows that demonstrations, calibration and the neighbour vote may use: never a test row."""
    return labelled_rows(dataset(work, "shots" if "shots" in work.parents else DATA))


def rows_to_annotate(data: TextData, limit: int | None, seed: int) -> pd.DataFrame:
    """At most `limit` training and validation rows, sampled with `seed`; a larger limit includes the rows of a smaller one.

    Gold labels, if the source has them, only serve to score the annotator.

    Raises:
        UserError: all rows are test rows.
    """
    if not len(data.split("train", "validation")):
        raise UserError(
            f"data={data.card.name} has no training or validation rows to annotate: all are test or pool rows; set data.test=0.2"
        )
    return draw(data.split("train", "validation"), limit, seed).sort_index().reset_index(drop=True)


def draw(rows: pd.DataFrame, limit: int | None, seed: int) -> pd.DataFrame:
    """All rows in order, or `limit` of them in the order of a sample by `seed`; a larger limit includes a smaller one's rows."""
    return rows if limit is None or limit >= len(rows) else rows.sample(frac=1, random_state=seed).head(limit)


def optional_labels(column: pd.Series) -> list[str | None]:
    """The labels in a column of predictions or votes, None for a missing one."""
    return [label if isinstance(label, str) else None for label in column]


def read_votes(folder: Path, names: Sequence[str], kind: str = "soft") -> tuple[pd.DataFrame, np.ndarray]:
    """Annotations, and their vote shares (`soft`) or exact probabilities (`p`), (n, len(names))."""
    frame = pd.read_parquet(folder / "annotations.parquet")
    return frame, frame[[f"{kind}_{name}" for name in names]].to_numpy()


def augmented_rows(work: Work) -> pd.DataFrame:
    """The new texts of the parent `augment` in the canonical columns (`label` None if unlabelled); empty without it."""
    if "augment" not in work.parents:
        return pd.DataFrame(columns=list(COLUMNS), dtype=object)
    rows = pd.read_parquet(Path(work.parents["augment"]) / "augmented.parquet")[list(COLUMNS)].astype(object)
    return rows.where(rows.notna(), None)


def concat_rows(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True).astype(dict.fromkeys(COLUMNS, object))


def transfer_texts(
    data: TextData,
    labelled: pd.DataFrame,
    validation: pd.DataFrame,
    tests: TestSets,
    new: pd.DataFrame,
    unlabelled: TextData | None,
) -> pd.DataFrame:
    """Texts to distil on besides the `labelled` ones: the data's other texts, the `new` ones and those of `unlabelled`.

    None is a test text or among the `validation` rows, and there are no duplicates.
    """
    further = [unlabelled.split("train", "pool")] if unlabelled is not None else []
    texts = pd.concat([part[["id", "text"]] for part in (data.split("train", "validation"), new, *further)], ignore_index=True)
    texts = drop_test_overlap(texts, tests)
    keys = texts["text"].map(text_key)
    used = pd.concat([labelled["text"], validation["text"]]).map(text_key)
    repeated = keys.isin(set(used)) | keys.duplicated()
    return texts[~repeated].reset_index(drop=True)
