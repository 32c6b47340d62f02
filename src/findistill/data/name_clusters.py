"""Clusters of similarly spelled names: which company a mention refers to, as far as its name tells."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rapidfuzz import fuzz, process
from rapidfuzz.distance import Levenshtein

from findistill.data.similarity import ROUNDING

THRESHOLD = 85.0  # similarity, 0 to 100, as in the study of Capital Fund Management
ROWS = 1_000  # names compared at once with the others: 20 MB for 20,000 of these
# Each with its factor to percent.
SCORERS: dict[str, tuple[Any, int]] = {"ratio": (fuzz.ratio, 1), "levenshtein": (Levenshtein.normalized_similarity, 100)}


def fold_name(name: str) -> str:
    """A form that is equal for names that differ only in case and blanks."""
    return " ".join(name.casefold().split())


def cluster_names(names: Sequence[str], similarity: str = "ratio", threshold: float = THRESHOLD) -> np.ndarray:
    """(n,) int: the cluster of each name; clusters are numbered in the order of their first names.

    Two names with a similarity >= threshold are in one cluster, and so are names connected by a chain of such pairs (single
    linkage, by union-find). About 100 million pairs per second and core; names of very different lengths are not compared.

    Args:
        similarity: `ratio`, that of rapidfuzz (twice the longest common subsequence over the sum of both lengths), or
            `levenshtein` (1 minus the edit distance over the length of the longer name), which is stricter.
        threshold: 0 to 100.
    """
    scorer, percents = SCORERS[similarity]
    order = sorted(range(len(names)), key=lambda name: len(names[name]))
    by_length = [names[name] for name in order]
    lengths = np.array([len(name) for name in by_length])
    longest = (200 - threshold) / threshold  # ratio of lengths above which neither similarity reaches the threshold
    parents = np.arange(len(names))
    for start in range(0, len(names), ROWS):
        rows = by_length[start : start + ROWS]
        columns = by_length[start : np.searchsorted(lengths, len(rows[-1]) * longest, "right")]
        cutoff = (threshold - ROUNDING) / percents
        scores = process.cdist(
            rows, columns, scorer=scorer, score_cutoff=cutoff, score_multiplier=percents, dtype=np.uint8, workers=-1
        )
        for row, column in zip(*(index.tolist() for index in np.nonzero(scores)), strict=True):
            if row < column:
                union(parents, order[start + row], order[start + column])
    return numbered(parents)


def union(parents: np.ndarray, one: int, other: int) -> None:
    """Merge the sets of two elements; the smaller root becomes the root of both."""
    roots = sorted((_root(parents, one), _root(parents, other)))
    parents[roots[1]] = roots[0]


def numbered(parents: np.ndarray) -> np.ndarray:
    """(n,) int: the set of each element, numbered in the order of their first elements."""
    roots = np.array([_root(parents, element) for element in range(len(parents))], dtype=int)
    return np.unique(roots, return_inverse=True)[1]


def _root(parents: np.ndarray, element: int) -> int:
    while parents[element] != element:
        parents[element] = parents[parents[element]]  # path halving
        element = int(parents[element])
    return element
