"""Which labelled texts a prompt shows, and in which order.

`random` and `balanced` choose once, so every prompt starts alike; `nearest` chooses for each text (KATE, Liu et al.
2022) and puts the most similar text last, next to the question. `shots.order` permutes what was chosen: how much an
annotator depends on the order is worth knowing (Lu et al. 2022). A text is never shown to itself or to its duplicate.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from findistill.data.labels import LabelSet
from findistill.data.normalise import duplicate_key
from findistill.errors import UserError
from findistill.llm.prompts import Demonstration
from findistill.settings.schema import Shots

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Embed = Callable[[Sequence[str]], "np.ndarray"]
CHUNK = 4096  # texts embedded at once


@dataclass(frozen=True)
class Chosen:
    """The demonstrations of every text: rows of `candidates`, (texts, k) or, where all texts share them, (1, k)."""

    candidates: list[Demonstration]
    indexes: "np.ndarray"

    def of(self, row: int) -> tuple[Demonstration, ...]:
        """The demonstrations of the text in this row, in prompt order."""
        return tuple(self.candidates[index] for index in self.indexes[row if len(self.indexes) > 1 else 0])

    def used(self) -> list[int]:
        """The candidates that any prompt shows."""
        return sorted({int(index) for index in self.indexes.ravel()})

    def explained(self, rationales: Mapping[int, tuple[str, ...]]) -> "Chosen":
        """The same choice, with rationales for some candidates."""
        told = [replace(each, rationale=rationales.get(at, each.rationale)) for at, each in enumerate(self.candidates)]
        return Chosen(told, self.indexes)


def choose(
    texts: "Sequence[str] | pd.Series[str]", pool: "pd.DataFrame", labels: LabelSet, shots: Shots, embed: Embed | None = None
) -> Chosen:
    """The `shots.k` demonstrations of every text.

    Rows of `pool` that duplicate one of `texts` are left out for all of them.

    Args:
        texts: the texts to annotate.
        pool: labelled rows with columns text, label and, where there are any, rationale.
        labels: whose names the pool's labels must be among.
        shots: how many, chosen how, in which order, with which seed.
        embed: (n texts) -> (n, d) unit vectors; `findistill.data.embeddings.embed_once` by default.

    Raises:
        UserError: the pool is too small for `shots.k`, lacks a label that `balanced` needs, or `shots.selection` is
            unknown.
    """
    import numpy as np

    if shots.k < 0:
        raise UserError(f"shots.k={shots.k}: it cannot be negative.")
    if shots.selection not in ("random", "balanced", "nearest"):
        raise UserError(f"shots.selection={shots.selection}: choose random, balanced or nearest.")
    if shots.k == 0:
        return none()
    candidates = _candidates(texts, pool, labels)
    if shots.rationales == "given":
        candidates = [each for each in candidates if each.rationale]
        if not candidates:
            raise UserError(
                "shots.rationales=given: no labelled text that is free to be a demonstration has a rationale.\n"
                "Name the column that has them (data.rationale_column), use shots.source=demo, or shots.rationales=llm."
            )
    if shots.k > len(candidates):
        raise UserError(
            f"shots.k={shots.k}: only {len(candidates)} labelled texts are free to be demonstrations.\n"
            "Raise data.pool, or lower shots.k (0: no demonstrations)."
        )
    if shots.selection == "nearest":
        indexes = _nearest(texts, candidates, shots.k, embed)
    else:
        draw = random.Random(shots.seed)
        if shots.selection == "random":
            chosen = draw.sample(range(len(candidates)), shots.k)
        else:
            chosen = _balanced(candidates, labels, shots.k, draw)
        indexes = np.array([chosen], np.int32)
    if shots.order is not None:
        indexes = indexes[:, random.Random(shots.order).sample(range(shots.k), shots.k)]
    return Chosen(candidates, indexes)


def none() -> Chosen:
    """No demonstrations for any text."""
    import numpy as np

    return Chosen([], np.empty((1, 0), np.int32))


def by_hand(label: str, count: int) -> Chosen:
    """Hand-written rationales for that label, the same for every text: what a rationale is. None for a label without any."""
    import numpy as np

    from findistill.data.demo import read_corpus

    rows = [row for row in read_corpus() if row["label"] == label and "rationale" in row][:count]
    return Chosen([Demonstration(row["text"], label, (row["rationale"],)) for row in rows], np.arange(len(rows))[None])


def _candidates(texts: "Sequence[str] | pd.Series[str]", pool: "pd.DataFrame", labels: LabelSet) -> list[Demonstration]:
    kept = pool[pool["label"].isin(labels.names)] if len(pool) else pool
    keys = [duplicate_key(text) for text in kept["text"]] if len(kept) else []
    known = set(keys)
    asked = {key for text in texts if (key := duplicate_key(text)) in known}
    rationales = kept["rationale"] if "rationale" in kept else [None] * len(kept)
    return [
        Demonstration(text, label, (rationale.strip(),) if isinstance(rationale, str) and rationale.strip() else None)
        for text, label, rationale, key in zip(kept["text"], kept["label"], rationales, keys, strict=True)
        if key not in asked
    ]


def _nearest(
    texts: "Sequence[str] | pd.Series[str]", candidates: list[Demonstration], k: int, embed: Embed | None
) -> "np.ndarray":
    """(texts, k), least similar first."""
    import numpy as np

    from findistill.data import embeddings, neighbours

    embed = embed or embeddings.embed_once
    pool = embed([each.text for each in candidates])
    found = [
        neighbours.nearest(embed(list(texts[start : start + CHUNK])), pool, k)[0][:, ::-1].astype(np.int32)
        for start in range(0, len(texts), CHUNK)
    ]
    return np.concatenate(found) if found else np.empty((0, k), np.int32)


def _balanced(candidates: list[Demonstration], labels: LabelSet, k: int, draw: random.Random) -> list[int]:
    """As many of each label as of any other, give or take one, in mixed order."""
    names = draw.sample(labels.names, len(labels.names))  # which labels get the odd ones out is drawn too
    chosen: list[int] = []
    for position, name in enumerate(names):
        wanted = k // len(names) + (position < k % len(names))
        of_label = [at for at, each in enumerate(candidates) if each.label == name]
        if len(of_label) < wanted:
            raise UserError(
                f"shots.selection=balanced with shots.k={k} needs {wanted} demonstrations labelled {name}, "
                f"and the pool has {len(of_label)}.\nRaise data.pool, lower shots.k, or use shots.selection=nearest."
            )
        chosen += draw.sample(of_label, wanted)
    draw.shuffle(chosen)
    return chosen
