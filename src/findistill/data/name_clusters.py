"""Names that are spellings of one another, in clusters: which company a mention is of, as far as its name says."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rapidfuzz import fuzz, process
from rapidfuzz.distance import Levenshtein

from findistill.data.similarity import ROUNDING

THRESHOLD = 85.0  # of the similarity, 0 to 100, as in the study of Capital Fund Management
ROWS = 1_000  # names that are compared at once with the others: 20 MB where these are 20,000
# Each with what makes percents of it.
SCORERS: dict[str, tuple[Any, int]] = {"ratio": (fuzz.ratio, 1), "levenshtein": (Levenshtein.normalized_similarity, 100)}


def fold_name(name: str) -> str:
    """Equal for names that differ in case and blanks alone."""
    return " ".join(name.casefold().split())


def cluster_names(names: Sequence[str], similarity: str = "ratio", threshold: float = THRESHOLD) -> np.ndarray:
    """(n,) int: the cluster of each name, numbered in the order of their first names.

    Two names with a similarity >= threshold are in one cluster, and so are all that a chain of such pairs connects (single
    linkage, by union-find). About 100 million pairs a second and core; names of very different lengths are not compared.

    Args:
        similarity: `ratio`, rapidfuzz' (twice the characters in common, in order, as a share of both lengths), or `levenshtein`
            (1 less the edit distance as a share of the longer name), which is stricter.
        threshold: 0 to 100.
    """
    scorer, percents = SCORERS[similarity]
    order = sorted(range(len(names)), key=lambda name: len(names[name]))
    by_length = [names[name] for name in order]
    lengths = np.array([len(name) for name in by_length])
    longest = (200 - threshold) / threshold  # of two lengths' ratio, above which neither similarity reaches the threshold
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
    """Make the sets of two elements one, whose root is the smaller of theirs."""
    roots = sorted((_root(parents, one), _root(parents, other)))
    parents[roots[1]] = roots[0]


def numbered(parents: np.ndarray) -> np.ndarray:
    """(n,) int: the set of each element, numbered in the order of their first elements."""
    roots = np.array([_root(parents, element) for element in range(len(parents))], dtype=int)
    return np.unique(roots, return_inverse=True)[1]


def _root(parents: np.ndarray, element: int) -> int:
    while parents[element] != element:
        parents[element] = parents[parents[element]]  # halves the way for the next time
        element = int(parents[element])
    return element
