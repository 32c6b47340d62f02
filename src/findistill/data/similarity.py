"""Edit similarity between texts: what counts as a near-duplicate."""

from collections.abc import Sequence

import numpy as np
from rapidfuzz import fuzz, process

from findistill.data.text_key import text_key

NEAR = 90.0  # at least this similar: near-duplicates
ROUNDING = 1e-4  # subtracted from a threshold, 0 to 100: at an exact match, rapidfuzz's answer depends on how floats round
BLOCK = 1000  # texts compared at once with all others


def similarity(text: str, other: str) -> float:
    """0 to 100: twice the longest common subsequence over the sum of both lengths (rapidfuzz's `ratio`).

    The higher of the similarities of the texts as they are and normalised. It is never below the Levenshtein similarity.
    """
    return max(fuzz.ratio(text, other), fuzz.ratio(text_key(text), text_key(other)))


def closest(texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """(n,) float32: the `similarity` of each text to the most similar of `others`, 0 where there are none.

    About 2 million pairs per second and core.
    """
    best = np.zeros(len(texts), np.float32)
    if not len(others):
        return best
    for spell in (str, text_key):
        rows, columns = [spell(each) for each in texts], [spell(each) for each in others]
        for start in range(0, len(rows), BLOCK):
            part = process.cdist(rows[start : start + BLOCK], columns, scorer=fuzz.ratio, dtype=np.float32, workers=-1)
            best[start : start + BLOCK] = np.maximum(best[start : start + BLOCK], part.max(axis=1))
    return best


def distinct(texts: Sequence[str], threshold: float) -> np.ndarray:
    """(n,) bool: which texts to keep so that no two have `similarity` >= threshold; the first of similar texts is kept."""
    keep = np.ones(len(texts), bool)
    spellings: list[tuple[list[str], list[str]]] = [(list(texts), []), ([text_key(text) for text in texts], [])]
    for row in range(len(texts)):
        keep[row] = not any(
            process.extractOne(all_texts[row], distinct_texts, scorer=fuzz.ratio, score_cutoff=threshold - ROUNDING)
            for all_texts, distinct_texts in spellings
        )
        if keep[row]:
            for all_texts, distinct_texts in spellings:
                distinct_texts.append(all_texts[row])
    return keep


def near_duplicates(keys: Sequence[str], others: Sequence[str], threshold: float = NEAR) -> np.ndarray:
    """(n,) bool: which text keys have an edit similarity >= `threshold` to any of `others`, which are keys, too.

    Texts of very different lengths are never compared: 10,000 posts against 2,000 take under a second.
    """
    near = np.zeros(len(keys), bool)
    others = sorted(others, key=len)
    lengths = np.array([len(other) for other in others], int)
    ratio = threshold / (200 - threshold)  # ratio of lengths below which the similarity cannot reach the threshold
    order = np.argsort([len(key) for key in keys], kind="stable")
    for start in range(0, len(keys) if others else 0, BLOCK // 4):
        block = order[start : start + BLOCK // 4]
        shortest, longest = len(keys[block[0]]) * ratio, len(keys[block[-1]]) / ratio
        part = others[np.searchsorted(lengths, shortest, "left") : np.searchsorted(lengths, longest, "right")]
        if part:
            rows = [keys[row] for row in block]
            cutoff = threshold - ROUNDING
            scores = process.cdist(rows, part, scorer=fuzz.ratio, score_cutoff=cutoff, dtype=np.uint8, workers=-1)
            near[block] = scores.any(axis=1)
    return near
