"""Paired tests against brute force and scipy; intervals against their definition."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest

from findistill.errors import UserError
from findistill.stats.intervals import seed_means
from findistill.stats.metrics import confusion, scores
from findistill.stats.significance import holm, paired, paired_macro_f1


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_sign_flip_p_is_the_share_of_all_sign_patterns(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 8))
    a = data.draw(arrays(bool, (data.draw(st.integers(1, 3)), n)))
    b = data.draw(arrays(bool, (data.draw(st.integers(1, 3)), n)))
    gaps = a.mean(0) - b.mean(0)
    sums = np.array([np.dot(signs, gaps) for signs in product((-1, 1), repeat=n)])
    expected = np.mean(np.abs(sums) >= abs(gaps.sum()) - 1e-9)
    found = paired(a, b, resamples=50)
    assert found.p == pytest.approx(expected)
    assert found.difference == pytest.approx(gaps.mean())
    assert paired(b, a, resamples=50).p == pytest.approx(expected)


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Exact, two-sided, on the rows where only one of two predictions is right."""
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


@settings(max_examples=40, deadline=None)
@given(pair=arrays(bool, (2, 60)))
def test_one_seed_is_mcnemar(pair: np.ndarray) -> None:
    a, b = pair
    assert paired(a[None], b[None], resamples=10).p == pytest.approx(mcnemar(a, b))


def test_one_seed_is_the_exact_binomial_test() -> None:
    a = np.array([True] * 9 + [False] * 2 + [True] * 30)
    b = np.array([False] * 9 + [True] * 2 + [True] * 30)
    assert paired(a[None], b[None], resamples=10).p == pytest.approx(binomtest(2, 11).pvalue)
    assert paired(a[None], a[None], resamples=10).p == 1.0


def test_paired_bounds_cover_the_difference_and_tell_a_clear_one_from_none() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 500)) < 0.8, rng.random((3, 500)) < 0.7
    clear = paired(a, b)
    assert clear.low < clear.difference < clear.high
    assert clear.low > 0 and clear.p is not None and clear.p < 1e-4
    # the interval's width is that of the rows' differences, not of the two accuracies apart
    assert (clear.high - clear.low) / 3.92 == pytest.approx((a.mean(0) - b.mean(0)).std() / np.sqrt(500), rel=0.1)


def test_false_alarms_are_rare() -> None:
    rng = np.random.default_rng(5)
    p_values = [paired(rng.random((2, 120)) < 0.7, rng.random((3, 120)) < 0.7, resamples=2).p or 0 for _ in range(300)]
    assert np.mean(np.array(p_values) < 0.05) < 0.09


def test_many_rows_stay_fast_and_finite() -> None:
    rng = np.random.default_rng(2)
    found = paired(rng.random((3, 20_000)) < 0.9, rng.random((3, 20_000)) < 0.7, resamples=100)
    assert found.p is not None and 0 <= found.p < 1e-50


def test_other_rows_are_refused() -> None:
    same = np.ones((1, 2), bool)
    with pytest.raises(UserError, match="different rows"):
        paired(same, same, np.array(["a", "b"]), np.array(["b", "a"]))


def test_seed_means() -> None:
    rng = np.random.default_rng(3)
    gold = rng.choice(3, 400)
    predicted = np.where(rng.random((3, 400)) < 0.75, gold, rng.choice(3, (3, 400)))
    found = seed_means(gold, predicted, 3)["macro_f1"]
    each = [float(scores(confusion(gold, one, 3))["macro_f1"]) for one in predicted]
    assert found.per_seed == pytest.approx(each)
    assert found.mean == pytest.approx(np.mean(each))
    assert found.sd == pytest.approx(np.std(each, ddof=1))
    assert found.low < found.mean < found.high
    assert seed_means(gold, predicted[:1], 3)["accuracy"].sd is None


def test_macro_f1_difference_of_a_method_with_itself_is_nothing() -> None:
    rng = np.random.default_rng(4)
    gold, predicted = rng.choice(3, 100), rng.choice(3, (2, 100))
    found = paired_macro_f1(gold, predicted, predicted, 3)
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
