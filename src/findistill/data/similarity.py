"""Edit similarity between texts: what counts as nearly the same text."""

from collections.abc import Sequence

import numpy as np

from findistill.data.normalise import duplicate_key

BLOCK = 1000  # texts compared at once with all others


def similarity(text: str, other: str) -> float:
    """0 to 100: twice the characters in common, in order, as a share of both lengths (rapidfuzz' `ratio`).

    Compared as they are and normalised, whichever is more alike. It is never below the similarity by Levenshtein distance.
    """
    from rapidfuzz import fuzz

    return max(fuzz.ratio(text, other), fuzz.ratio(duplicate_key(text), duplicate_key(other)))


def closest(texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """(n,) float32: the `similarity` of each text to the most similar of `others`, 0 where there are none.

    About 2 million pairs a second and core.
    """
    from rapidfuzz import fuzz, process

    best = np.zeros(len(texts), np.float32)
    if not len(others):
        return best
    for spell in (str, duplicate_key):
        left, right = [spell(each) for each in texts], [spell(each) for each in others]
        for start in range(0, len(left), BLOCK):
            part = process.cdist(left[start : start + BLOCK], right, scorer=fuzz.ratio, dtype=np.float32, workers=-1)
            best[start : start + BLOCK] = np.maximum(best[start : start + BLOCK], part.max(axis=1))
    return best


def distinct(texts: Sequence[str], threshold: float) -> np.ndarray:
    """(n,) bool: which texts to keep so that no two have `similarity` >= threshold; the first of such texts stays."""
    from rapidfuzz import fuzz, process

    spellings = [list(texts), [duplicate_key(each) for each in texts]]
    keep = np.ones(len(texts), bool)

    def alike(rows: slice, others: Sequence[int]) -> np.ndarray:
        """(rows, others) bool."""
        found = [
            process.cdist(
                each[rows], [each[i] for i in others], scorer=fuzz.ratio, score_cutoff=threshold, dtype=np.float32, workers=-1
            )
            for each in spellings
        ]
        return np.maximum(*found) >= threshold

    for start in range(0, len(texts), BLOCK):
        rows = slice(start, min(start + BLOCK, len(texts)))
        if len(before := np.flatnonzero(keep[:start])):
            keep[rows] &= ~alike(rows, before.tolist()).any(axis=1)
        within = alike(rows, range(rows.start, rows.stop))
        for row in range(len(within)):
            if keep[start + row]:
                keep[start + row + 1 : rows.stop] &= ~within[row, row + 1 :]
    return keep
