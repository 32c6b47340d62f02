"""Draw the headlines that people review: some of every company, and some without a name.

The annotations are read twice in batches: for their names, then for the drawn rows. Only a few numbers are kept per headline:
900,000 headlines take 270 MB, imports included.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from findistill.core.files import write_json
from findistill.core.store import Work
from findistill.data.date_periods import periods_of
from findistill.data.name_clusters import cluster_names, fold_name
from findistill.errors import UserError
from findistill.llm.votes import certainty
from findistill.methods.sampling.leaks import overlap, split_by_cluster

SETTING = "entities.sample.periods"
BATCH = 20_000  # headlines per read
NONE, NOT_DRAWN = -1, -2  # in place of a cluster: a headline without a name, one that is not drawn


@dataclass(frozen=True)
class Names:
    """The names in all headlines.

    Attributes:
        names: distinct ones, folded, in the order of their first mention.
        spellings: the first spelling of each.
        rows, codes: (mentions,) int32: index of each mention's headline, and of its name.
        answered: (headlines,) bool: whether there was a valid answer.
    """

    names: list[str]
    spellings: list[str]
    rows: np.ndarray
    codes: np.ndarray
    answered: np.ndarray


def draw_sample(work: Work) -> None:
    """Write the sample of the parent `extraction` to the artifact's folder.

    Raises:
        UserError: no headline has a valid answer.
    """
    settings = work.config.entities.sample
    annotations = Path(work.parents["extraction"]) / "annotations.parquet"
    names = read_names(annotations)
    if not names.answered.any():
        raise UserError(f"{annotations}: no headline has a valid answer, so there is nothing to sample; label them again")
    clusters = cluster_names(names.names, settings.similarity, settings.threshold)
    representatives = representatives_of(names, clusters)
    drawn_for = draw(names, clusters, settings.share, settings.seed)
    rows = np.flatnonzero(drawn_for != NOT_DRAWN)
    table = _rows(annotations, rows)
    texts = _rows_by_id(Path(work.parents["data"]) / "texts.parquet", table["id"])
    dates, splits = ([texts[each][at] for each in table["id"].to_pylist()] for at in (0, 1))
    if settings.split == "date":
        splits = periods_of(pd.Series(dates, dtype=object), list(settings.periods), work.step.whole.data.name, SETTING).tolist()
        inside = np.array([split is not None for split in splits])
        drawn_for[rows[~inside]] = NOT_DRAWN
        rows, table = rows[inside], table.filter(pa.array(inside))
        dates, splits = (
            [value for value, is_inside in zip(column, inside, strict=True) if is_inside] for column in (dates, splits)
        )
    clusters_of = _clusters_of(names, clusters, rows)
    if settings.split == "cluster":
        splits = split_by_cluster(clusters_of, settings.test, settings.validation, settings.seed)
    columns = {
        "id": table["id"],
        "text": table["text"],
        "date": pa.array(dates, pa.string()),
        "split": pa.array(splits, pa.string()),
        "cluster": pa.array([None if each == NONE else int(each) for each in drawn_for[rows]], pa.int32()),
        "representative": pa.array([None if each == NONE else representatives[each] for each in drawn_for[rows]], pa.string()),
        "clusters": pa.array(clusters_of, pa.list_(pa.int32())),
        "spans": table["spans"],
        "agreement": pa.array(_agreement(table), pa.float64()),
    }
    pq.write_table(pa.table(columns), work.folder / "sample.parquet")
    _write_clusters(work.folder / "clusters.csv", names, clusters, representatives, drawn_for)
    facts: dict[str, Any] = {
        "headlines": len(names.answered),
        "without_answer": int((~names.answered).sum()),
        "without_name": int(names.answered.sum() - len(np.unique(names.rows))),
        "names": len(names.names),
        "clusters": len(representatives),
        "largest_cluster": int(np.bincount(clusters).max(initial=0)),
        "drawn": len(rows),
        "drawn_outside_periods": len(texts) - len(rows),
        "drawn_without_name": int((drawn_for[rows] == NONE).sum()),
        "splits": {name: splits.count(name) for name in ("train", "validation", "test")},
        "test_clusters_in_train": overlap(clusters_of, splits, "test"),
        "validation_clusters_in_train": overlap(clusters_of, splits, "validation"),
    }
    write_json(work.folder / "sample.json", facts)


def read_names(annotations: Path) -> Names:
    """The names of all headlines: as the LLM normalised them, or as written in the text."""
    codes: dict[str, int] = {}
    spellings: list[str] = []
    rows, of_mentions, answered = [], [], []
    row = 0
    for batch in _batches(annotations, ["text", "spans", "normalized", "n_valid"]):
        for text, spans, normalized in zip(*(batch[name].to_pylist() for name in ("text", "spans", "normalized")), strict=True):
            for at, span in enumerate(spans or ()):
                normal = normalized[at] if normalized and at < len(normalized) else None
                spelling = (normal or text[span["start"] : span["end"]]).strip()
                if (name := fold_name(spelling)) not in codes:
                    codes[name] = len(codes)
                    spellings.append(spelling)
                rows.append(row)
                of_mentions.append(codes[name])
            row += 1
        valid = pc.and_kleene(pc.is_valid(batch["spans"]), pc.greater(batch["n_valid"], 0))
        answered.append(valid.to_numpy(zero_copy_only=False).astype(bool))
    flags = np.concatenate([*answered, np.zeros(0, bool)])
    return Names([*codes], spellings, np.array(rows, np.int32), np.array(of_mentions, np.int32), flags)


def representatives_of(names: Names, clusters: np.ndarray) -> list[str]:
    """The name with the most mentions in each cluster; ties go to the shortest, then to the alphabetically first."""
    mentions = np.bincount(names.codes, minlength=len(names.names))
    best: dict[int, int] = {}
    for name in sorted(range(len(names.names)), key=lambda name: (-mentions[name], len(names.names[name]), names.names[name])):
        best.setdefault(int(clusters[name]), name)
    return [names.spellings[best[cluster]] for cluster in range(len(best))]


def draw(names: Names, clusters: np.ndarray, share: float, seed: int) -> np.ndarray:
    """(headlines,) int: the cluster for which each headline is drawn, `NONE` without a name, `NOT_DRAWN` for the others.

    `share` of each cluster's headlines is drawn, rounded, at least one. All clusters use one random order of headlines, so a
    smaller share is a subset of a larger one, and a headline that names two companies counts for both.
    """
    priority = np.random.default_rng(seed).permutation(len(names.answered))
    drawn_for = np.full(len(names.answered), NOT_DRAWN)
    for cluster, rows in _groups(_pairs(names, clusters)):
        chosen = rows[np.argsort(priority[rows], kind="stable")][: max(1, round(share * len(rows)))]
        drawn_for[chosen[drawn_for[chosen] < 0]] = cluster
    nameless = np.setdiff1d(np.flatnonzero(names.answered), names.rows)
    count = max(1, round(share * len(nameless))) if len(nameless) else 0
    drawn_for[nameless[np.argsort(priority[nameless], kind="stable")][:count]] = NONE
    return drawn_for


def _pairs(names: Names, clusters: np.ndarray) -> np.ndarray:
    """(2, n): the distinct pairs of a cluster and its headline, sorted."""
    size = len(names.answered) + 1
    pairs = np.unique(clusters[names.codes].astype(np.int64) * size + names.rows)
    return np.stack([pairs // size, pairs % size])


def _groups(pairs: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(cluster, its headlines) of (2, n) pairs, sorted by cluster."""
    starts = [*np.flatnonzero(np.diff(pairs[0], prepend=-1)), pairs.shape[1]]
    for start, end in pairwise(starts):
        yield int(pairs[0, start]), pairs[1, start:end]


def _clusters_of(names: Names, clusters: np.ndarray, rows: np.ndarray) -> list[list[int]]:
    """The distinct clusters of each of these headlines."""
    place = {int(row): at for at, row in enumerate(rows)}
    sets: list[set[int]] = [set() for _ in place]
    mask = np.isin(names.rows, rows)
    for row, code in zip(names.rows[mask].tolist(), names.codes[mask].tolist(), strict=True):
        sets[place[row]].add(int(clusters[code]))
    return [sorted(each) for each in sets]


def _batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        yield from file.iter_batches(BATCH, columns=there)


def _rows(path: Path, rows: np.ndarray) -> pa.Table:
    """The rows at these positions, in ascending order."""
    parts, start = [], 0
    for batch in _batches(path, ["id", "text", "spans", "candidates", "n_valid"]):
        first, last = np.searchsorted(rows, [start, start + len(batch)])
        parts.append(pa.Table.from_batches([batch]).take(pa.array(rows[first:last] - start)))
        start += len(batch)
    return pa.concat_tables(parts)


def _rows_by_id(path: Path, ids: Any) -> dict[str, tuple[str | None, str | None]]:
    """The date and the split of these texts of a data set."""
    rows_by_id: dict[str, tuple[str | None, str | None]] = {}
    for each in ids.to_pylist():
        rows_by_id[each] = None, None
    keys = pa.array([*rows_by_id], pa.string())
    for batch in _batches(path, ["id", "date", "split"]):
        part = batch.filter(pc.is_in(batch["id"].cast(pa.string()), keys))
        dates = part["date"].cast(pa.string()).to_pylist()
        rows_by_id |= dict(zip(part["id"].to_pylist(), zip(dates, part["split"].to_pylist(), strict=True), strict=True))
    return rows_by_id


def _agreement(table: pa.Table) -> list[float]:
    """The `certainty` of each headline."""
    spans = table["candidates" if "candidates" in table.column_names else "spans"].to_pylist()
    return [certainty(cell or (), n_valid) for cell, n_valid in zip(spans, table["n_valid"].to_pylist(), strict=True)]


def _write_clusters(
    path: Path, names: Names, clusters: np.ndarray, representatives: Sequence[str], drawn_for: np.ndarray
) -> None:
    """Write one row per cluster, those with the most headlines first."""
    members: list[list[str]] = [[] for _ in representatives]
    for name, cluster in zip(names.spellings, clusters.tolist(), strict=True):
        members[cluster].append(name)
    headlines = np.bincount(_pairs(names, clusters)[0], minlength=len(members))
    counts = np.bincount(drawn_for[drawn_for >= 0], minlength=len(members))
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["cluster", "representative", "names", "headlines", "drawn", "spellings"])
        for cluster in np.argsort(-headlines, kind="stable").tolist():
            own = members[cluster]
            writer.writerow([cluster, representatives[cluster], len(own), headlines[cluster], counts[cluster], " | ".join(own)])
