"""Span metrics against hand-computed values, and their intervals against resampling."""

import numpy as np
import pytest

from findistill.data.span_counts import counts
from findistill.data.spans import Span
from findistill.errors import UserError
from findistill.stats.spans import METRICS, evaluate, influences, paired, resampled, scores, seed_means


def spans(*pairs: tuple[int, int], label: str = "company") -> list[Span]:
    return [Span(start, end, label) for start, end in pairs]


GOLD = [spans((0, 4), (10, 14)), spans((0, 9)), []]
GUESS = [spans((0, 4), (12, 16)), [], spans((3, 5))]


def test_exact_and_overlap_by_hand() -> None:
    metrics = evaluate(GOLD, GUESS, ["company"], resamples=50)
    assert metrics["test/precision"] == metrics["test/recall"] == metrics["test/f1"] == pytest.approx(1 / 3)
    assert metrics["test/overlap_precision"] == pytest.approx(2 / 3) == metrics["test/overlap_f1"]
    assert metrics["test/f1_lo"] <= metrics["test/f1"] <= metrics["test/f1_hi"]
    assert metrics["test/texts_right"] == 0 and metrics["test/n"] == metrics["test/spans"] == metrics["test/spans_predicted"] == 3


def test_a_span_of_another_label_is_wrong_in_both_ways() -> None:
    metrics = evaluate([spans((0, 4), label="a")], [spans((0, 4), label="b")], ["a", "b"], resamples=10)
    assert metrics["test/f1"] == metrics["test/overlap_f1"] == metrics["test/a/f1"] == metrics["test/macro_f1"] == 0


def test_one_predicted_span_over_two_gold_ones_recovers_both_by_overlap() -> None:
    [[[predicted, gold, same, right, recovered]]] = counts([spans((0, 4), (5, 9))], [spans((0, 9))], ["company"]).tolist()
    assert (predicted, gold, same, right, recovered) == (1, 2, 0, 1, 2)


def test_nothing_gold_and_nothing_predicted_is_zero_and_no_warning() -> None:
    assert evaluate([[]], [[]], ["company"], resamples=10)["test/f1"] == 0


def test_no_texts_is_a_users_mistake() -> None:
    with pytest.raises(UserError, match=r"test: no texts to evaluate"):
        evaluate([], [], ["company"])


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    """(2, 400, 5): two methods, the first one better."""
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 3, 400)
    rows = []
    for skill in (0.85, 0.7):
        same = rng.binomial(gold, skill)
        predicted = same + rng.integers(0, 2, 400)
        overlap = np.minimum(same + rng.integers(0, 2, 400), np.minimum(gold, predicted))
        rows.append(np.stack([predicted, gold, same, overlap, overlap], axis=1))
    return np.stack(rows)


@pytest.mark.parametrize("metric", METRICS)
def test_influences_give_the_spread_that_resampling_gives(table: np.ndarray, metric: str) -> None:
    influence = influences(table)[metric][0]
    draws = scores(resampled(table[:1], resamples=2000, seed=0)[0])[metric]
    assert influence.std() / 20 == pytest.approx(draws.std(), rel=0.1) and abs(influence.mean()) < 1e-9


def test_resampling_draws_whole_texts_and_the_same_for_all(table: np.ndarray) -> None:
    same = resampled(np.stack([table[0], table[0]]), resamples=20, seed=1)
    assert np.array_equal(same[0], same[1]) and same.shape == (2, 20, 5)


def test_methods_of_several_seeds_have_intervals_over_seeds_and_texts(table: np.ndarray) -> None:
    several, one = seed_means(table)["f1"], seed_means(table[:1])["f1"]
    assert several.low < several.mean < several.high and len(several.per_seed) == 2 and one.sd is None
    assert one.low < one.mean < one.high


def test_paired_differences(table: np.ndarray) -> None:
    test = paired(table[:1], table[1:], resamples=500)
    assert test.difference > 0 and test.low > 0 and test.p is not None and test.p < 0.01 and test.over == "rows"
    same = paired(table[:1], table[:1], resamples=100)
    assert same.difference == 0 and same.p == 1
    several = paired(np.repeat(table[:1], 3, 0), np.repeat(table[1:], 3, 0), seeds_a=[0, 1, 2], seeds_b=[0, 1, 2])
    assert several.difference == pytest.approx(test.difference) and several.over == "seeds and rows"
