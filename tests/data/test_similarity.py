"""Edit similarity: how it is measured, and which texts count as the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from findistill.data import similarity
from findistill.data.similarity import closest, distinct, near_duplicates

TEXTS = st.lists(st.text("abcde .,%", min_size=1, max_size=12), min_size=1, max_size=14)
FEW = settings(max_examples=60, deadline=None)


@FEW
@given(TEXTS, TEXTS)
def test_closest_is_the_best_of_all_pairs_however_they_are_cut_into_blocks(texts: list[str], others: list[str]) -> None:
    expected = [max(similarity.similarity(text, other) for other in others) for text in texts]
    for block in (1, 5, 1000):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(similarity, "BLOCK", block)
            assert closest(texts, others) == pytest.approx(expected, abs=1e-4)


@FEW
@given(TEXTS, st.sampled_from([50.0, 80.0, 90.0, 100.0]))
def test_no_two_distinct_texts_are_alike_and_each_other_one_is_like_an_earlier(texts: list[str], threshold: float) -> None:
    masks = []
    for block in (3, 1000):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(similarity, "BLOCK", block)
            masks.append(distinct(texts, threshold))
    keep = masks[0]
    assert (masks[0] == masks[1]).all() and keep[0]
    for row, text in enumerate(texts):
        earlier = [texts[i] for i in np.flatnonzero(keep[:row])]
        alike = any(similarity.similarity(text, other) >= threshold for other in earlier)
        assert alike != keep[row]


@FEW
@given(st.text("abcd .,", min_size=1, max_size=15), st.text("abcd .,", min_size=1, max_size=15))
def test_it_is_at_least_the_similarity_by_levenshtein_distance(text: str, other: str) -> None:
    assert similarity.similarity(text, other) >= 100 * Levenshtein.normalized_similarity(text, other) - 1e-6


def test_spelling_does_not_hide_a_copy_and_nothing_is_close_to_nothing() -> None:
    assert similarity.similarity("PROFIT ROSE -- again!", "profit rose again") == 100
    assert closest(["a b", "c"], []).tolist() == [0, 0] and closest([], ["a"]).tolist() == []
    assert distinct([], 90).tolist() == []


@pytest.mark.parametrize("threshold", [60.0, 68.0, 90.0, 93.0])
def test_a_threshold_that_is_reached_exactly_is_reached(threshold: float) -> None:
    """In integers: texts of n and m equal letters, n <= m, have a similarity of 200 n / (n + m)."""
    for n in range(20, 60, 2):
        for m in range(n, 90):
            one, other, alike = "a" * n, "a" * m, 200 * n >= threshold * (n + m)
            assert near_duplicates([one], [other], threshold).all() == alike, (n, m)
            assert (len(np.flatnonzero(distinct([one, other], threshold))) == 1) == alike, (n, m)
