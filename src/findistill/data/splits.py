"""Cleaning and splitting: no text, in whatever spelling, ends up in two splits.

Test texts come first, then validation, then the rest: a split never shrinks for the sake of one after it. Every draw
has its own random stream, so a larger pool or a lower limit leaves test and validation as they are.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from findistill.data.labels import LabelSet
from findistill.data.normalise import duplicate_key
from findistill.data.texts import SPLITS
from findistill.errors import UserError
from findistill.settings.schema import Data

if TYPE_CHECKING:
    import pandas as pd

_STREAMS = {"test": 1, "validation": 2, "pool": 3, "limit": 4, "sample": 5}


def assign(rows: "pd.DataFrame", config: Data, labels: LabelSet) -> "tuple[pd.DataFrame, dict[str, int]]":
    """Drop blanks and duplicates, give every row its split, and count what was removed.

    `rows` has the columns of `TextData.frame`; `split` is what the source itself says, None where it says nothing.
    Unlabelled texts all stay in train unless the source says otherwise.

    Raises:
        UserError: nothing is left (to train on); a share, `data.pool` or `data.limit` that cannot be; a label outside
            the set; training rows of one class only.
    """
    _check(config)
    labelled = bool(rows["label"].notna().any())
    removed: dict[str, int] = {}
    if not len(rows):
        raise UserError(f"data={config.name}: the source holds no rows")

    blank = ~rows["text"].str.strip().astype(bool)
    removed["blank texts"] = int(blank.sum())
    rows = rows[~blank]
    if not len(rows):
        raise UserError(f"data={config.name}: every text is blank ({removed['blank texts']:,} rows); check data.text_column")
    if labelled:
        for name in rows["label"].dropna().unique():
            labels.index(name)

    rows = rows.assign(_key=rows["text"].map(duplicate_key))
    own = {split: rows[rows["split"] == split] for split in SPLITS}
    rest = rows[rows["split"].isna() | (rows["split"] == "train")]

    def claim(part: "pd.DataFrame", *taken: "pd.DataFrame") -> "pd.DataFrame":
        """The part without texts that an earlier split has, and each text once."""
        known = set().union(*(other["_key"] for other in taken))
        leaked = part["_key"].isin(known)
        removed["also in an earlier split"] = removed.get("also in an earlier split", 0) + int(leaked.sum())
        return _unique(part[~leaked], removed)

    test = claim(own["test"])
    rest = claim(rest, test)
    if labelled and not len(own["test"]):
        test = rest.loc[_draw(rest, _share(config.test, len(rest)), "test", config.seed, labels)]
        rest = rest.drop(test.index)

    validation = claim(own["validation"], test)
    train = claim(rest, validation)
    if labelled and not len(own["validation"]):
        validation = train.loc[_draw(train, _share(config.validation, len(train)), "validation", config.seed, labels)]
        train = train.drop(validation.index)

    pool = claim(own["pool"], test, validation)
    train = claim(train, pool)
    if config.pool and not len(own["pool"]):
        if not labelled:
            raise UserError(f"data.pool={config.pool}: a pool of demonstrations needs labels, and data={config.name} has none")
        if config.pool >= len(train):
            raise UserError(
                f"data.pool={config.pool} leaves nothing to train on: data={config.name} has {len(train):,} training rows"
            )
        pool = train.loc[_draw(train, config.pool, "pool", config.seed, labels)]
        train = train.drop(pool.index)

    if len(rest) and not len(train):
        raise UserError(
            f"data={config.name}: of {len(rows):,} rows none is left to train on once data.test={config.test} "
            f"and data.validation={config.validation} have theirs; give more rows or other shares"
        )
    if labelled and len(train) and train["label"].nunique() < 2:
        raise UserError(
            f"data={config.name}: all {len(train):,} training rows have the label {train['label'].iloc[0]!r}; "
            "two classes at least are needed, check data.label_column and data.label_map"
        )
    if config.limit is not None and config.limit < len(train):
        chosen = _draw(train, config.limit, "limit", config.seed, labels)
        removed["over data.limit"] = len(train) - len(chosen)
        train = train.loc[chosen]

    parts = {"train": train, "validation": validation, "test": test, "pool": pool}
    frame = _concat(*(part.assign(split=name) for name, part in parts.items()))
    return frame.drop(columns="_key").reset_index(drop=True), removed


def sample(rows: "pd.DataFrame", size: int, seed: int, labels: LabelSet) -> "pd.DataFrame":
    """So many of the labelled rows, labels in their natural proportions; a smaller sample is a part of a larger one."""
    return rows.loc[_draw(rows, min(size, len(rows)), "sample", seed, labels)].reset_index(drop=True)


def _check(config: Data) -> None:
    if not 0 <= config.validation < 1:
        raise UserError(f"data.validation={config.validation}: a share from 0 up to, but not including, 1 is needed")
    if not 0 <= config.test <= 1:
        raise UserError(f"data.test={config.test}: a share from 0 to 1 is needed (1: all rows are for testing)")
    if config.pool < 0:
        raise UserError(f"data.pool={config.pool}: a number of rows, 0 or more, is needed")
    if config.limit is not None and config.limit < 1:
        raise UserError(f"data.limit={config.limit}: a number of rows, 1 or more, is needed (or null for all)")


def _unique(part: "pd.DataFrame", removed: dict[str, int]) -> "pd.DataFrame":
    """Each text once, its first row; a text whose rows disagree on the label is dropped: which is right?"""
    conflicting = part.groupby("_key")["label"].transform("nunique") > 1 if len(part) else part["_key"].isna()
    repeated = part["_key"].duplicated() & ~conflicting
    removed["duplicates"] = removed.get("duplicates", 0) + int(repeated.sum())
    removed["duplicates with different labels"] = removed.get("duplicates with different labels", 0) + int(conflicting.sum())
    return part[~repeated & ~conflicting]


def _concat(*parts: "pd.DataFrame") -> "pd.DataFrame":
    """The parts together, in the source's order."""
    import pandas as pd

    filled = [part for part in parts if len(part)]
    return pd.concat(filled).sort_index() if filled else parts[0]


def _share(share: float, rows: int) -> int:
    """That share of the rows, at least one where a share is wanted."""
    return min(rows, max(1, round(share * rows))) if share else 0


def _draw(rows: "pd.DataFrame", size: int, purpose: str, seed: int, labels: LabelSet) -> "list[int]":
    """Index values of `size` rows, labels in their natural proportions (largest remainders), in the rows' order."""
    import numpy as np

    random = np.random.default_rng([seed, _STREAMS[purpose]])
    names: Sequence[str | None] = labels.names if rows["label"].notna().any() else (None,)
    groups = [rows.index[rows["label"].isna() if name is None else rows["label"] == name].to_numpy() for name in names]
    # Shuffled whole, so that a smaller draw is a part of a larger one.
    shuffled = [group[random.permutation(len(group))] for group in groups]
    exact = [size * len(group) / max(1, len(rows)) for group in groups]
    takes = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(groups)), key=lambda group: takes[group] - exact[group])
    for group in by_remainder[: size - sum(takes)]:
        takes[group] += 1
    return sorted(int(row) for group, take in zip(shuffled, takes, strict=True) for row in group[:take])
