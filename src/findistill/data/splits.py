"""Cleaning and splitting: no text, in whatever spelling, ends up in two splits.

Test texts are assigned first, then validation, then the rest: a split never loses texts to a later one. Every draw has
its own random stream, so a larger pool or a lower limit does not change test and validation.
"""

import math
from collections import Counter

import numpy as np
import pandas as pd

from findistill.data.config import Data
from findistill.data.date_periods import periods_of
from findistill.data.labels import LabelSet
from findistill.data.similarity import near_duplicates
from findistill.data.text_key import text_key
from findistill.data.texts import is_labelled
from findistill.data.training_texts import text_hashes
from findistill.errors import UserError

TEST_SHARE = 0.2  # of the user's own rows, if data.test is not set
_STREAMS = {"test": 1, "validation": 2, "pool": 3, "limit": 4, "sample": 5, "folds": 6}


def assign(rows: pd.DataFrame, config: Data, labels: LabelSet) -> tuple[pd.DataFrame, dict[str, int]]:
    """Drop blanks and duplicates, assign every row to a split, and count what was removed.

    `rows` has the columns of `TextData.frame`; `split` is the source's own, None if it has none.
    Texts of an unlabelled source all stay in train unless the source, or `data.split_by_date`, says otherwise. In a labelled one,
    rows without a label go to train, after all others, and take no part in any other draw; if split by date, those outside the
    training period are dropped.

    Raises:
        UserError: nothing is left (to train on); more `data.labelled` than rows; a label outside the set; training rows of
            one class only, or none with a mention; dates that cannot be used.
    """
    labelled = bool(is_labelled(rows).any())
    removed: Counter[str] = Counter()
    if not len(rows):
        raise UserError(f"data={config.name}: the source has no rows")
    if config.split_by_date is not None:
        rows = rows.assign(split=periods_of(rows["date"], list(config.split_by_date), config.name))
        removed["outside data.split_by_date"] += int(rows["split"].isna().sum())
        rows = rows[rows["split"].notna()]
    blank = ~rows["text"].str.strip().astype(bool)
    removed["blank texts"] += int(blank.sum())
    rows = rows[~blank]
    if not len(rows):
        raise UserError(f"data={config.name}: every text is blank ({removed['blank texts']:,} rows); check data.text_column")
    for name in rows["label"].dropna().unique():
        labels.index(name)

    whole = rows  # what follows copies rows many times, and needs few of their columns
    rows = rows[[name for name in ("text", "label", "spans", "split") if name in rows]]
    rows = rows.assign(_key=text_hashes(rows["text"]), _target=_targets(rows))
    unlabelled = rows[~is_labelled(rows) & labelled]
    rows = rows.drop(unlabelled.index)
    if config.split_by_date is not None:  # later texts must not be trained on
        if empty := {"train", "test"} - set(rows["split"]):
            of = "labelled row" if labelled else "row"
            raise UserError(
                f"data.split_by_date=[{','.join(config.split_by_date)}]: data={config.name} has no {of} in the "
                f"{min(empty)} period; choose other periods"
            )
        later = unlabelled["split"] != "train"
        removed["without a label, outside the period of training"] += int(later.sum())
        unlabelled = unlabelled[~later]

    def claim(part: pd.DataFrame, *earlier: pd.DataFrame) -> pd.DataFrame:
        """The part without duplicates and without texts of earlier splits."""
        leaked = part["_key"].isin(set().union(*(other["_key"] for other in earlier)))
        removed["also in an earlier split"] += int(leaked.sum())
        return _unique(part[~leaked], removed)

    parts: dict[str, pd.DataFrame] = {}
    shares = {"test": TEST_SHARE if config.test is None else config.test, "validation": config.validation}
    train = rows[rows["split"].isna() | (rows["split"] == "train")]
    for split in ("test", "validation", "pool"):
        own = rows[rows["split"] == split]
        parts[split] = claim(own, *parts.values())
        train = claim(train, parts[split])
        size = config.labelled
        if split == "pool" and config.labelled and not len(own):
            if not labelled:
                raise UserError(f"data.labelled={config.labelled}: data={config.name} has no labels to keep")
            most = len(train) if len(unlabelled) else len(train) - 1  # one row must remain to train on
            if config.labelled > most:
                raise UserError(
                    f"data.labelled={config.labelled} leaves nothing to train on: data={config.name} has {len(train):,} labelled "
                    f"rows outside test and validation. Label more texts, or lower it: data.labelled={max(most, 0)} at most"
                )
        elif split != "pool":
            size = min(len(train), max(1, round(shares[split] * len(train)))) if shares[split] else 0
        if labelled and not len(own):
            seed = config.seed if split != "pool" or config.labelled_seed is None else config.labelled_seed
            parts[split] = train.loc[_draw(train, size, split, seed, labels)]
            train = train.drop(parts[split].index)
        if split == "test":
            after_test = len(train)
            if config.near_duplicates == "drop":
                others = _concat(train, rows[rows["split"].isin(["validation", "pool"])], unlabelled)
                others = others[~others["_key"].isin(parts["test"]["_key"])]
                keys, test_keys = ([text_key(text) for text in part["text"]] for part in (others, parts["test"]))
                dropped = others.index[near_duplicates(keys, test_keys)]
                removed["near-duplicates of test rows"] += len(dropped)
                rows, train, unlabelled = (part.drop(dropped, errors="ignore") for part in (rows, train, unlabelled))

    if after_test and not len(train) and not len(parts["pool"]):
        raise UserError(
            f"data={config.name}: none of {len(rows):,} rows is left to train on after data.test={shares['test']} "
            f"and data.validation={config.validation}; give more rows or smaller shares"
        )
    learnable = _concat(train, parts["pool"])
    if labelled and len(learnable) and "spans" in rows and not learnable["spans"].map(len).any():
        raise UserError(
            f"data={config.name}: none of the {len(learnable):,} training rows mentions any of {', '.join(labels.names)}; check "
            "data.spans_column, data.label_map and data.split_by_date"
        )
    if labelled and len(learnable) and "spans" not in rows and learnable["label"].nunique() < 2:
        raise UserError(
            f"data={config.name}: all {len(learnable):,} training rows have the label {learnable['label'].iloc[0]!r}, "
            "but at least two classes are needed; check data.label_column and data.label_map"
        )
    extra = claim(unlabelled, *parts.values())
    duplicate = extra["_key"].isin(train["_key"])
    removed["duplicates"] += int(duplicate.sum())
    train = _concat(train, extra[~duplicate])
    if config.limit is not None and config.limit < len(train):
        removed["over data.limit"] = len(train) - config.limit
        train = train.loc[_draw(train, config.limit, "limit", config.seed, labels)]
    if config.fold is not None:  # the real test rows are not used
        candidates = parts["pool"] if len(parts["pool"]) else train[is_labelled(train)]
        fold = candidates.loc[_fold(candidates, config, labels)]
        removed["test rows that are no part of a fold"] += len(parts["test"])
        train, parts["pool"] = (part.drop(fold.index, errors="ignore") for part in (train, parts["pool"]))
        parts["test"] = fold
    parts = {"train": train, **parts}
    splits = _concat(*(part[["split"]].assign(split=name) for name, part in parts.items()))
    return whole.loc[splits.index].assign(split=splits["split"]).reset_index(drop=True), dict(removed)


def sample(rows: pd.DataFrame, size: int, seed: int, labels: LabelSet) -> pd.DataFrame:
    """`size` of the labelled rows, stratified by label; a smaller sample is a subset of a larger one."""
    return rows.loc[_draw(rows, min(size, len(rows)), "sample", seed, labels)].reset_index(drop=True)


def _unique(part: pd.DataFrame, removed: Counter[str]) -> pd.DataFrame:
    """The first row of each text; texts whose rows disagree on the label, or the mentions, are dropped."""
    conflicting = part.groupby("_key")["_target"].transform("nunique") > 1 if len(part) else part["_key"].isna()
    duplicate = part["_key"].duplicated() & ~conflicting
    removed.update({"duplicates": int(duplicate.sum()), "duplicates with different labels": int(conflicting.sum())})
    return part[~duplicate & ~conflicting]


def _targets(rows: pd.DataFrame) -> pd.Series:
    """What must agree between duplicates, None if unlabelled: the label, or the mentions' types and texts, not their offsets."""
    if "spans" not in rows:
        return rows["label"]
    targets = [
        None if spans is None else repr([(each["label"], text_key(text[each["start"] : each["end"]])) for each in spans])
        for text, spans in zip(rows["text"], rows["spans"], strict=True)
    ]
    return pd.Series(targets, rows.index, dtype=object)


def _concat(*parts: pd.DataFrame) -> pd.DataFrame:
    """The parts concatenated, in the source's order."""
    rows = [part for part in parts if len(part)]
    return pd.concat(rows).sort_index() if rows else parts[0]


def _fold(rows: pd.DataFrame, config: Data, labels: LabelSet) -> list[int]:
    """Index values of the rows of fold `config.fold`; folds are stratified by label.

    Raises:
        UserError: there are fewer labelled rows than folds.
    """
    assert config.fold is not None
    if len(rows) < config.folds:
        raise UserError(f"data.folds={config.folds}: data={config.name} has only {len(rows)} labelled rows to learn from")
    groups = _shuffled(rows, "folds", config.seed if config.labelled_seed is None else config.labelled_seed, labels)
    return sorted(int(row) for row in np.concatenate(groups)[config.fold :: config.folds])


def _draw(rows: pd.DataFrame, size: int, purpose: str, seed: int, labels: LabelSet) -> list[int]:
    """Index values of `size` rows, stratified by label (largest remainders), in the rows' order."""
    shuffled = _shuffled(rows, purpose, seed, labels)
    exact = [size * len(group) / max(1, len(rows)) for group in shuffled]
    takes = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(shuffled)), key=lambda group: takes[group] - exact[group])
    for group in by_remainder[: size - sum(takes)]:
        takes[group] += 1
    return sorted(int(row) for group, take in zip(shuffled, takes, strict=True) for row in group[:take])


def _shuffled(rows: pd.DataFrame, purpose: str, seed: int, labels: LabelSet) -> list[np.ndarray]:
    """Index values of all rows of each label, and of those without one, shuffled: a smaller draw is a subset of a larger one.

    In a data set of entities, rows with and without mentions take the place of labels.
    """
    random = np.random.default_rng([seed, _STREAMS[purpose]])
    has_label = is_labelled(rows)
    if "spans" in rows:
        mentions = rows["spans"].map(lambda spans: bool(spans is not None and len(spans))).astype(bool)
        masks = [mentions, has_label & ~mentions]
    else:
        masks = [rows["label"] == name for name in labels.names]
    groups = [rows.index[mask].to_numpy() for mask in masks if has_label.any()]
    if not has_label.all():
        groups.append(rows.index[~has_label].to_numpy())
    return [group[random.permutation(len(group))] for group in groups]
