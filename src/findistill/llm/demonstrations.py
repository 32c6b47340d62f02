"""Which labelled texts a prompt shows.

`random` and `balanced` choose once, so every prompt starts alike; `nearest` chooses for each text (KATE, Liu et al.
2022) and puts the most similar text last, next to the question. A text is never shown to itself or to its duplicate.
"""

import random
from collections.abc import Callable, Sequence
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


def choose(
    texts: Sequence[str], pool: "pd.DataFrame", labels: LabelSet, shots: Shots, embed: Embed | None = None
) -> list[tuple[Demonstration, ...]]:
    """The `shots.k` demonstrations of every text, in prompt order.

    Rows of `pool` that duplicate one of `texts` are left out for all of them.

    Args:
        texts: the texts to annotate.
        pool: labelled rows with columns text, label and, where there are any, rationale.
        labels: whose names the pool's labels must be among.
        shots: how many, chosen how, with which seed.
        embed: (n texts) -> (n, d) unit vectors; `findistill.data.embeddings.embed` by default.

    Raises:
        UserError: the pool is too small for `shots.k`, lacks a label that `balanced` needs, or `shots.selection` is
            unknown.
    """
    if shots.k < 0:
        raise UserError(f"shots.k={shots.k}: it cannot be negative.")
    if shots.selection not in ("random", "balanced", "nearest"):
        raise UserError(f"shots.selection={shots.selection}: choose random, balanced or nearest.")
    if shots.k == 0:
        return [()] * len(texts)
    asked = {duplicate_key(text) for text in texts}
    kept = pool[pool["label"].isin(labels.names)] if len(pool) else pool
    kept = kept[[duplicate_key(text) not in asked for text in kept["text"]]] if len(kept) else kept
    if shots.k > len(kept):
        raise UserError(
            f"shots.k={shots.k}: only {len(kept)} labelled texts are free to be demonstrations.\n"
            "Raise data.pool, or lower shots.k (0: no demonstrations)."
        )
    rationales = kept["rationale"] if "rationale" in kept else [None] * len(kept)
    candidates = [
        Demonstration(text, label, rationale if isinstance(rationale, str) and rationale.strip() else None)
        for text, label, rationale in zip(kept["text"], kept["label"], rationales, strict=True)
    ]
    if shots.selection == "nearest":
        return _nearest(texts, candidates, shots.k, embed)
    draw = random.Random(shots.seed)
    chosen = draw.sample(candidates, shots.k) if shots.selection == "random" else _balanced(candidates, labels, shots.k, draw)
    return [tuple(chosen)] * len(texts)


def _nearest(
    texts: Sequence[str], candidates: list[Demonstration], k: int, embed: Embed | None
) -> list[tuple[Demonstration, ...]]:
    from findistill.data import embeddings, neighbours

    embed = embed or embeddings.embed
    indexes, _ = neighbours.nearest(embed(texts), embed([each.text for each in candidates]), k)
    return [tuple(candidates[index] for index in reversed(row)) for row in indexes.tolist()]


def _balanced(candidates: list[Demonstration], labels: LabelSet, k: int, draw: random.Random) -> list[Demonstration]:
    """As many of each label as of any other, give or take one, in mixed order."""
    names = draw.sample(labels.names, len(labels.names))  # which labels get the odd ones out is drawn too
    chosen: list[Demonstration] = []
    for position, name in enumerate(names):
        wanted = k // len(names) + (position < k % len(names))
        of_label = [each for each in candidates if each.label == name]
        if len(of_label) < wanted:
            raise UserError(
                f"shots.selection=balanced with shots.k={k} needs {wanted} demonstrations labelled {name}, "
                f"and the pool has {len(of_label)}.\nRaise data.pool, lower shots.k, or use shots.selection=nearest."
            )
        chosen += draw.sample(of_label, wanted)
    draw.shuffle(chosen)
    return chosen
