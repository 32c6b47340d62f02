"""Nearest labelled texts, and the vote of their labels: the baseline every retrieval prompt has to beat."""

from collections.abc import Sequence

import numpy as np

from findistill.data.labels import LabelSet

_CHUNK_CELLS = 2**24  # similarities held at once: 64 MB of float32
_TIE_WEIGHT = 1e-3  # far below one vote of any k in use


def nearest(queries: np.ndarray, pool: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar pool rows of each query: indexes and cosine similarities, (n, k) each, best first.

    `queries` (n, d) and `pool` (m, d) hold vectors of length 1. Ties keep the pool's order. k is capped at m.
    """
    k = min(k, len(pool))
    indexes = np.zeros((len(queries), k), dtype=np.int64)
    similarities = np.zeros((len(queries), k), dtype=np.float32)
    rows = max(1, _CHUNK_CELLS // max(1, len(pool)))
    for start in range(0, len(queries) if k else 0, rows):
        scores = queries[start : start + rows] @ pool.T
        # The k-th highest score bounds the candidates; sorting by (-score, index) among them makes ties deterministic.
        bounds = np.partition(scores, len(pool) - k, axis=1)[:, len(pool) - k]
        for row, (line, bound) in enumerate(zip(scores, bounds, strict=True), start):
            candidates = np.flatnonzero(line >= bound)
            best = candidates[np.argsort(-line[candidates], kind="stable")][:k]
            indexes[row], similarities[row] = best, line[best]
    return indexes, similarities


def neighbour_vote(similarities: np.ndarray, indexes: np.ndarray, pool_labels: Sequence[str], labels: LabelSet) -> np.ndarray:
    """(n, n_labels) shares of the neighbours' labels, rows summing to 1; equal shares if k is 0.

    Ties are broken by the summed similarity, added as a tiny term. Arguments as `nearest` returns them.
    """
    if not indexes.size:
        return np.full((len(indexes), len(labels)), 1 / len(labels))
    columns = np.array([labels.index(label) for label in pool_labels])[indexes]
    is_label = columns[:, :, None] == np.arange(len(labels))
    closeness = ((1 + similarities) / 2)[:, :, None]  # in [0, 1], so that a distant neighbour never counts against its label
    scores = (is_label * (1 + _TIE_WEIGHT * closeness)).sum(1)
    return scores / scores.sum(1, keepdims=True)
