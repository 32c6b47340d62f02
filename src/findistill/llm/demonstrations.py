"""Which labelled texts a prompt shows, and in which order.

`random` and `balanced` select once, so all prompts share a prefix; `nearest` selects for each text (KATE, Liu et al.
2022) and puts the most similar text last, next to the text to label. `shots.order_seed` permutes the selection, to measure
how much an annotator depends on the order (Lu et al. 2022). A text is never its own demonstration, nor its duplicate's.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pandas as pd

from findistill.data import neighbours
from findistill.data.demo import read_corpus
from findistill.data.labels import LabelSet
from findistill.data.text_key import text_key
from findistill.errors import UserError
from findistill.llm.config import Shots
from findistill.llm.prompts import Demonstration
from findistill.models import embeddings

Texts: TypeAlias = "Sequence[str] | pd.Series[str]"
CHUNK = 4096  # texts embedded at once


@dataclass(frozen=True)
class DemonstrationTable:
    """The demonstrations of every text: rows of `candidates`, (texts, k) or, where all texts share them, (1, k)."""

    candidates: list[Demonstration]
    indexes: np.ndarray

    def of(self, row: int) -> tuple[Demonstration, ...]:
        """The demonstrations of the text in this row, in prompt order."""
        return tuple(self.candidates[index] for index in self.indexes[row if len(self.indexes) > 1 else 0])

    def used(self) -> list[int]:
        """Indexes of the candidates that any prompt shows."""
        return sorted({int(index) for index in self.indexes.ravel()})

    def with_rationales(self, rationales: Mapping[int, tuple[str, ...]]) -> "DemonstrationTable":
        """The same selection, with rationales for some candidates."""
        candidates = [replace(each, rationale=rationales.get(at, each.rationale)) for at, each in enumerate(self.candidates)]
        return DemonstrationTable(candidates, self.indexes)


def select(texts: Texts, pool: pd.DataFrame, labels: LabelSet | None, shots: Shots) -> DemonstrationTable:
    """The `shots.k` demonstrations of every text.

    Rows of `pool` that duplicate one of `texts` are excluded for all of them.

    Args:
        texts: the texts to annotate.
        pool: labelled rows with columns text, label and, where there are any, rationale.
        labels: only pool rows with one of these are used; None: labels are free answers, and all rows are used.
        shots: their number, selection, order and seed.

    Raises:
        UserError: the pool is too small for `shots.k`, or lacks a label that `balanced` needs.
    """
    if shots.k == 0:
        return none()
    if labels is None and shots.selection == "balanced":
        raise UserError("shots.selection=balanced needs a label per text, and entities have none; use nearest or random")
    candidates = _candidates(texts, pool, labels)
    if shots.rationales == "given":
        candidates = [each for each in candidates if each.rationale]
        if not candidates:
            raise UserError(
                "shots.rationales=given: none of the labelled texts available as demonstrations has a rationale.\n"
                "Name the column that has them (data.rationale_column), or use shots.source=demo or shots.rationales=llm."
            )
    if shots.k > len(candidates):
        raise UserError(
            f"shots.k={shots.k}: only {len(candidates)} labelled texts are available as demonstrations.\n"
            "Raise data.labelled, or lower shots.k (0: no demonstrations)."
        )
    if shots.selection == "nearest":
        indexes = _nearest(texts, candidates, shots.k)
    elif shots.selection == "random" or labels is None:
        indexes = np.array([random.Random(shots.seed).sample(range(len(candidates)), shots.k)], np.int32)
    else:
        indexes = np.array([_balanced(candidates, labels, shots.k, random.Random(shots.seed))], np.int32)
    if shots.order_seed is not None:
        indexes = indexes[:, random.Random(shots.order_seed).sample(range(shots.k), shots.k)]
    return DemonstrationTable(candidates, indexes)


def none() -> DemonstrationTable:
    """No demonstrations for any text."""
    return DemonstrationTable([], np.empty((1, 0), np.int32))


def hand_written(label: str, count: int) -> DemonstrationTable:
    """Demonstrations with hand-written rationales for that label, the same for every text; none for a label without any."""
    rows = [row for row in read_corpus() if row["label"] == label and "rationale" in row][:count]
    examples = [Demonstration(row["text"], label, (row["rationale"],)) for row in rows]
    return DemonstrationTable(examples, np.arange(len(rows))[None])


def _candidates(texts: Texts, pool: pd.DataFrame, labels: LabelSet | None) -> list[Demonstration]:
    labelled = pool[pool["label"].isin(labels.names) if labels else pool["label"].notna()] if len(pool) else pool
    keys = [text_key(text) for text in labelled["text"]] if len(labelled) else []
    overlap = set(keys).intersection(map(text_key, texts))
    rationales = labelled["rationale"] if "rationale" in labelled else [None] * len(labelled)
    return [
        Demonstration(text, label, (rationale.strip(),) if isinstance(rationale, str) and rationale.strip() else None)
        for text, label, rationale, key in zip(labelled["text"], labelled["label"], rationales, keys, strict=True)
        if key not in overlap
    ]


def _nearest(texts: Texts, candidates: list[Demonstration], k: int) -> np.ndarray:
    """(texts, k), least similar first."""
    pool = embeddings.embed_once([each.text for each in candidates])
    indexes = np.empty((len(texts), k), np.int32)
    for start in range(0, len(texts), CHUNK):
        queries = embeddings.embed_once(list(texts[start : start + CHUNK]))
        indexes[start : start + CHUNK] = neighbours.nearest(queries, pool, k)[0][:, ::-1]
    return indexes


def _balanced(candidates: list[Demonstration], labels: LabelSet, k: int, draw: random.Random) -> list[int]:
    """Equally many of each label, give or take one, in shuffled order."""
    names = draw.sample(labels.names, len(labels.names))  # which labels get an extra one is random too
    selected: list[int] = []
    for position, name in enumerate(names):
        share = k // len(names) + (position < k % len(names))
        of_label = [at for at, each in enumerate(candidates) if each.label == name]
        if len(of_label) < share:
            raise UserError(
                f"shots.selection=balanced with shots.k={k} needs {share} demonstrations labelled {name}, "
                f"and the pool has {len(of_label)}.\nRaise data.labelled, lower shots.k, or use shots.selection=nearest."
            )
        selected += draw.sample(of_label, share)
    draw.shuffle(selected)
    return selected
