"""Which texts a person should label next: those that the annotator is least sure of, all unlike each other."""

import numpy as np
import pandas as pd

from findistill.data.text_key import text_key
from findistill.models.embeddings import embed_once

CANDIDATES = 10  # per text wanted: the least certain texts, from which the choice is made


def next_to_label(votes: pd.DataFrame, shares: np.ndarray, labelled: list[str], number: int) -> pd.DataFrame:
    """At most `number` texts for a person to label: id, text, label (empty), suggestion, agreement.

    A greedy choice of the text with the largest product of doubt and novelty: doubt is 1 minus the share of its majority
    label, novelty 1 minus the cosine similarity to the closest text already labelled or chosen. This avoids near-duplicates,
    and outliers that the annotator is sure of (uncertainty and diversity, as in Zhdanov 2019).

    Args:
        votes: annotations of n texts: id, text, label, gold, agreement.
        shares: (n, labels) vote shares.
        labelled: texts that already have a human label.
    """
    keys = {text_key(text) for text in labelled}
    free = ~votes["text"].map(text_key).isin(keys).to_numpy()
    if (free & votes["gold"].isna().to_numpy()).any():  # else every gold label counts as hidden
        free &= votes["gold"].isna().to_numpy()
    doubt = np.where(free, 1 - shares.max(axis=1), -1.0)
    order = np.argsort(-doubt, kind="stable")[: min(CANDIDATES * number, int(free.sum()))]
    vectors, doubt = embed_once(votes["text"].iloc[order].tolist()), doubt[order]
    novelty = 1 - (vectors @ embed_once(labelled).T).max(axis=1) if labelled else np.ones(len(order))
    taken: list[int] = []
    for _ in range(min(number, len(order))):
        gain = (doubt + 1e-3) * np.clip(novelty, 1e-6, None)
        gain[taken] = -1
        taken.append(int(gain.argmax()))
        novelty = np.minimum(novelty, 1 - vectors @ vectors[taken[-1]])
    rows = votes.iloc[order[taken]]
    chosen = rows[["id", "text"]].assign(label="", suggestion=rows["label"].fillna(""), agreement=rows["agreement"])
    return chosen.reset_index(drop=True)
