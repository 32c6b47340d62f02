"""From a data configuration to texts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd
from omegaconf import OmegaConf

from findistill.config.instantiate import resolve
from findistill.config.validate import wrong_values
from findistill.core.store import Work
from findistill.data.config import Data
from findistill.data.labels import COMPANY, SENTIMENT, LabelSet, names_in
from findistill.data.name_clusters import cluster_names, fold_name
from findistill.data.reviewed import with_decisions
from findistill.data.rows import Source
from findistill.data.serialization import write_folder
from findistill.data.similarity import NEAR, near_duplicates
from findistill.data.spans import check, from_cell
from findistill.data.splits import assign
from findistill.data.text_key import text_key
from findistill.data.texts import COLUMNS, SPLITS, DataCard, TextData
from findistill.errors import UserError

MOST_NAMES = 20_000  # most names clustered for the card, which takes seconds
TYPED = (*COLUMNS, "spans")  # columns in which missing values are None


def load(config: Data) -> TextData:
    """Read the configured source, clean it and split it.

    Raises:
        UserError: the data set is not available, a file is faulty, or a setting cannot be met.
    """
    if problems := [*wrong_values(OmegaConf.create({"data": config}))]:
        raise UserError("\n".join(problems[:3]))
    source = cast(Source, resolve(config._target_, "data._target_")(config))
    decided, reviews = with_decisions(source.rows, config)
    rows = _frame(decided)
    labels, notes = _label_set(source, config, rows)
    if "spans" in rows:
        _check_spans(rows, labels, source.origin)
    frame, removed = assign(rows, config, labels)
    counts = _counts(frame, labels)
    notes += _near_duplicates(frame)
    if "spans" in frame:
        notes += _shared_names(frame)
    if config.test == 1 and set(counts) == {"test"}:
        notes.append("all labelled rows are test rows (data.test=1)")
    card = DataCard(
        config.name, source.licence, source.citation, source.origin, counts, removed, (*source.notes, *reviews, *notes)
    )
    return TextData(frame, labels, card)


def store(work: Work) -> None:
    """Write the data set of `work.config`, a `data` section, to the artifact's folder."""
    write_folder(load(work.config), work.folder)


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Canonical columns first, None where a row has no value; pandas' own text type would turn None into NaN."""
    names = dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=object if name in TYPED else None) for name in names}
    )


def _check_spans(rows: pd.DataFrame, labels: LabelSet, origin: str) -> None:
    """Raise UserError for the first faulty span; rows are counted from 1."""
    for number, (text, spans) in enumerate(zip(rows["text"], rows["spans"], strict=True), 1):
        if spans:
            check(text, from_cell(spans), labels.names, f"{origin}, row {number}")


def _label_set(source: Source, config: Data, rows: pd.DataFrame) -> tuple[LabelSet, list[str]]:
    """The source's labels or `data.labels`, else those of the rows; and notes for the card."""
    if "spans" in rows:
        mentions = Counter(span["label"] for spans in rows["spans"] if spans for span in spans)
        types = tuple(source.labels or config.labels or sorted(mentions) or [COMPANY])
        counts = ", ".join(f"{mentions[name]:,} of {name}" for name in types)
        return LabelSet(types, fewest=1), [f"mentions, in all rows: {counts}"]
    if names := source.labels or config.labels:
        return LabelSet(tuple(names), fewest=2 if rows["label"].notna().any() else 1), []  # unlabelled: may be one entity type
    labels = rows["label"].dropna()
    if labels.empty:  # an annotator will assign them
        return LabelSet(SENTIMENT), []
    names = names_in(labels.tolist(), source.origin)
    return LabelSet(names), [f"data.labels is not set; the labels are those of the rows: {', '.join(names)}"]


def _near_duplicates(frame: pd.DataFrame) -> list[str]:
    """A note on how many rows of each other split are near-duplicates of a test row; none without such rows."""
    if not (frame["split"] == "test").any():
        return []
    keys = frame["text"].map(text_key)
    test = keys[frame["split"] == "test"].tolist()
    counts = {name: int(near_duplicates(keys[frame["split"] == name].tolist(), test).sum()) for name in SPLITS if name != "test"}
    if not any(counts.values()):
        return []
    rows = ", ".join(f"{count:,} in {name}" for name, count in counts.items() if count)
    measure = f"edit similarity of {NEAR:g} or more"
    return [f"near-duplicates of test rows ({measure}): {rows}; data.near_duplicates=drop removes them"]


def _shared_names(frame: pd.DataFrame) -> list[str]:
    """A note on how many companies of test rows are also in training rows; none without test rows, or with too many names."""
    names: dict[str, set[str]] = {}
    for split, text, spans in zip(frame["split"], frame["text"], frame["spans"], strict=True):
        for span in spans if spans is not None else ():
            names.setdefault(fold_name(text[span["start"] : span["end"]]), set()).add(split)
    if not any("test" in splits for splits in names.values()) or len(names) > MOST_NAMES:
        return []
    of_cluster: dict[int, set[str]] = {}
    for cluster, splits in zip(cluster_names([*names]).tolist(), names.values(), strict=True):
        of_cluster.setdefault(cluster, set()).update(splits)
    in_test = [splits for splits in of_cluster.values() if "test" in splits]
    shared = sum(bool(splits & {"train", "pool"}) for splits in in_test)
    return [
        f"names: {shared:,} of the {len(in_test):,} in test rows also occur in training rows (similar spellings count as one)"
    ]


def _counts(frame: pd.DataFrame, labels: LabelSet) -> dict[str, dict[str, int]]:
    """Rows by split and label; in a data set of entities, rows with and without mentions."""
    counts = {}
    names = labels.names
    if "spans" in frame:
        names = ("with mentions", "without mentions")
        kinds = frame["spans"].map(lambda spans: None if spans is None else names[not len(spans)])
        frame = frame.assign(label=kinds)
    for split in SPLITS:
        rows = frame.loc[frame["split"] == split, "label"]
        by_label = {name: int((rows == name).sum()) for name in names} if rows.notna().any() else {}
        without = {"unlabelled": int(rows.isna().sum())} if rows.isna().any() else {}
        if len(rows):
            counts[split] = by_label | without
    return counts
