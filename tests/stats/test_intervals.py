"""Intervals and paired tests: simulations of equal methods, a bootstrap over seeds and rows, brute force and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest, ttest_ind, ttest_rel

from findistill.stats.intervals import accuracy_share, seed_means, standard_error
from findistill.stats.metrics import confusion, influences, scores
from findistill.stats.significance import holm, paired


def runs(rng: np.random.Generator, difficulty: np.ndarray, n: int, spread: float) -> np.ndarray:
    """Which rows are right in `n` runs of one method: (n, rows); `spread` is the true sd of a run's accuracy."""
    weight = difficulty * (1 - difficulty)
    moved = (difficulty + rng.normal(0, spread, (n, 1)) * weight / weight.mean()).astype(np.float32)
    return rng.random((n, len(difficulty)), dtype=np.float32) < np.clip(moved, 0, 1)


def false_alarms(n_rows: int, spread: float, *, repeats: int, share_seeds: bool = True, seeds: int = 5) -> float:
    """How often two equal methods differ with p < 0.05."""
    rng = np.random.default_rng(n_rows)
    alarms = 0
    for _ in range(repeats):
        difficulty = rng.beta(0.8 * 0.5, 0.2 * 0.5, n_rows)
        a, b = (runs(rng, difficulty, seeds, spread) for _ in "ab")
        values, rows = (a.mean(1), b.mean(1)), (a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True))
        if share_seeds:
            error = standard_error((values[0] - values[1], rows[0] - rows[1]))
        else:
            error = standard_error((values[0], rows[0]), (-values[1], -rows[1]))
        alarms += error.p(values[0].mean() - values[1].mean()) < 0.05
    return alarms / repeats


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [970, 2377])
@pytest.mark.parametrize("spread", [0.0, 0.003, 0.01, 0.03])
def test_equal_methods_differ_in_one_study_of_twenty(n_rows: int, spread: float) -> None:
    assert 0.04 <= false_alarms(n_rows, spread, repeats=6000) <= 0.06


@pytest.mark.parametrize(("n_rows", "spread"), [(970, 0.0), (970, 0.03)])
def test_false_alarms_are_as_rare_as_said(n_rows: int, spread: float) -> None:
    assert 0.03 <= false_alarms(n_rows, spread, repeats=1000) <= 0.07
    assert 0.02 <= false_alarms(n_rows, spread, repeats=1000, share_seeds=False) <= 0.07


def answers(rng: np.random.Generator, gold: np.ndarray, seeds: int, accuracy: float) -> np.ndarray:
    return np.where(rng.random((seeds, len(gold))) < accuracy, gold, rng.choice(3, (seeds, len(gold))))


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "weighted_f1"])
def test_influences_give_the_covariance_that_a_bootstrap_finds(metric: str) -> None:
    rng = np.random.default_rng(0)
    gold = rng.choice(3, 600, p=[0.6, 0.3, 0.1])
    predicted = answers(rng, gold, 2, 0.6)
    predicted[0, :30] = -1  # rows without an answer
    rows = influences(gold, predicted, 3)[metric]
    assert rows.mean(1) == pytest.approx([0, 0], abs=1e-12)
    drawn = rng.integers(0, 600, (3000, 600))
    resampled = [[scores(confusion(gold[rows], one[rows], 3))[metric] for one in predicted] for rows in drawn]
    assert np.cov(rows) / 600 == pytest.approx(np.cov(np.array(resampled).T), rel=0.15)


def test_the_error_has_the_parts_of_seeds_and_rows() -> None:
    """Over many simulated studies, the spread of the mean over seeds matches the standard error."""
    rng = np.random.default_rng(1)
    means, errors = [], []
    for _ in range(1500):
        right = runs(rng, rng.beta(0.4, 0.1, 400), 4, 0.02)
        means.append(right.mean())
        errors.append(standard_error((right.mean(1), right - right.mean(1, keepdims=True))).value)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(means), rel=0.06)


def test_without_a_share_of_rows_it_is_the_t_test_of_the_seeds() -> None:
    """If all rows are alike, two methods differ only by seed: Student's and Welch's tests."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.8, 0.02, 5), rng.normal(0.78, 0.02, 5)
    nothing = np.zeros((5, 300))
    together = standard_error((a - b, nothing)).p(float(a.mean() - b.mean()))
    apart = standard_error((a, nothing), (-b, nothing)).p(float(a.mean() - b.mean()))
    assert together == pytest.approx(ttest_rel(a, b).pvalue)
    assert apart == pytest.approx(ttest_ind(a, b, equal_var=False).pvalue)


def test_seeds_that_share_what_they_drew_are_subtracted_one_by_one() -> None:
    """If seeds affect both methods alike, paired seeds give a certain difference; unpaired, they hide it."""
    rng = np.random.default_rng(3)
    gold = rng.choice(3, 500)
    both = [answers(rng, gold, 1, accuracy)[0] for accuracy in (0.5, 0.6, 0.7, 0.8, 0.9)]
    b = np.stack(both)
    a = b.copy()
    for one in a:
        wrong = np.flatnonzero(one != gold)[:12]
        one[wrong] = gold[wrong]
    together = paired(gold, a, b, 3, seeds_a=range(5), seeds_b=range(5))["accuracy"]
    apart = paired(gold, a, b, 3, seeds_a=range(5), seeds_b=range(5, 10))["accuracy"]
    assert together.difference == pytest.approx(0.024) == apart.difference
    assert together.over == apart.over == "seeds and rows"
    assert together.p is not None and together.p < 0.001 and together.low > 0
    assert apart.p is not None and apart.p > 0.5 and apart.low < 0 < apart.high


def test_a_method_of_one_run_stands_as_it_is() -> None:
    rng = np.random.default_rng(4)
    gold = rng.choice(3, 800)
    a, b = answers(rng, gold, 5, 0.8), answers(rng, gold, 1, 0.6)
    comparison = paired(gold, a, b, 3, seeds_a=range(5), seeds_b=[None])
    assert comparison["accuracy"].over == "seeds and rows"
    assert comparison["accuracy"].low > 0 and comparison["macro_f1"].low > 0
    back = paired(gold, b, a, 3, seeds_a=[None], seeds_b=range(5))["accuracy"]
    assert (back.difference, back.low, back.p) == pytest.approx(
        (-comparison["accuracy"].difference, -comparison["accuracy"].high, comparison["accuracy"].p)
    )


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Exact two-sided p-value on the rows where only one of the two predictions is right."""
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


@settings(max_examples=40, deadline=None)
@given(pair=arrays(bool, (2, 60)))
def test_one_model_each_is_mcnemar_over_rows(pair: np.ndarray) -> None:
    gold = np.zeros(60, int)
    a, b = (np.where(one, 0, 1)[None] for one in pair)
    comparison = paired(gold, a, b, 2, resamples=10)
    assert comparison["accuracy"].p == pytest.approx(mcnemar(*pair))
    assert comparison["accuracy"].over == "rows" and comparison["macro_f1"].p is None


def test_bounds_of_two_models_are_those_of_the_rows_differences() -> None:
    rng = np.random.default_rng(5)
    gold = rng.choice(3, 600)
    a, b = answers(rng, gold, 1, 0.8), answers(rng, gold, 1, 0.6)
    clear = paired(gold, a, b, 3)["accuracy"]
    gaps = (a[0] == gold).astype(int) - (b[0] == gold)
    assert clear.low > 0 and (clear.high - clear.low) / 3.92 == pytest.approx(gaps.std() / np.sqrt(600), rel=0.1)


def test_seed_means() -> None:
    rng = np.random.default_rng(3)
    gold = rng.choice(3, 400)
    predicted = answers(rng, gold, 3, 0.6)
    estimate = seed_means(gold, predicted, 3)["macro_f1"]
    each = [float(scores(confusion(gold, one, 3))["macro_f1"]) for one in predicted]
    assert estimate.per_seed == pytest.approx(each)
    assert estimate.mean == pytest.approx(np.mean(each))
    assert estimate.sd == pytest.approx(np.std(each, ddof=1))
    assert estimate.low < estimate.mean < estimate.high
    assert seed_means(gold, predicted[:1], 3)["accuracy"].sd is None


def test_bounds_hold_seeds_that_are_far_apart() -> None:
    """Seeds at 0.45, 0.65 and 0.73 say little about a fourth: an interval over rows alone would exclude all three."""
    rng = np.random.default_rng(6)
    gold = rng.choice(3, 2000)
    predicted = np.concatenate([answers(rng, gold, 1, accuracy) for accuracy in (0.2, 0.5, 0.6)])
    estimate = seed_means(gold, predicted, 3)["accuracy"]
    assert estimate.low < min(estimate.per_seed) and estimate.high > max(estimate.per_seed)
    assert estimate.low >= 0 and estimate.high <= 1


def test_a_share_of_accuracy_varies_with_seeds_and_rows() -> None:
    rng = np.random.default_rng(7)
    student, teacher = rng.random((5, 900)) < 0.76, rng.random((1, 900)) < 0.8
    share, low, high = accuracy_share(student, teacher)
    assert share == pytest.approx(student.mean() / teacher.mean())
    drawn = [rng.integers(0, 900, 900) for _ in range(2000)]
    resampled = [student[rng.integers(0, 5, 5)][:, rows].mean() / teacher[:, rows].mean() for rows in drawn]
    assert (high - low) / 2 == pytest.approx(1.96 * np.std(resampled), rel=0.3)


def test_a_method_does_not_differ_from_itself() -> None:
    rng = np.random.default_rng(4)
    gold, predicted = rng.choice(3, 100), rng.choice(3, (2, 100))
    for comparison in paired(gold, predicted, predicted, 3, seeds_a=[0, 1], seeds_b=[0, 1]).values():
        assert (comparison.difference, comparison.low, comparison.high, comparison.p) == (0.0, 0.0, 0.0, 1.0)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_seeds_on_one_draw_of_labelled_rows_are_one_unit() -> None:
    """Runs that are repeated without anything new make no interval narrower; without units they would."""
    rng = np.random.default_rng(1)
    gold = rng.choice(3, 400)
    once = [answers(rng, gold, 3, accuracy) for accuracy in (0.8, 0.7)]
    draws = (0, 1, 2)
    twice, units = [np.repeat(each, 2, axis=0) for each in once], (0, 0, 1, 1, 2, 2)
    for key, one in seed_means(gold, twice[0], 3, units=units).items():
        expected = seed_means(gold, once[0], 3)[key]
        assert (one.mean, one.low, one.high) == pytest.approx((expected.mean, expected.low, expected.high))
        narrow = seed_means(gold, twice[0], 3)[key]
        assert one.high - one.low > 1.1 * (narrow.high - narrow.low)
    expected = paired(gold, *once, 3, seeds_a=draws, seeds_b=draws)["accuracy"]
    for a, b, seeds_a, seeds_b in (
        (*twice, units, units), (twice[0], once[1], units, draws), (once[0], once[1][::-1], draws, draws[::-1]),
    ):  # fmt: skip
        one = paired(gold, a, b, 3, seeds_a=seeds_a, seeds_b=seeds_b)["accuracy"]
        assert (one.difference, one.low, one.high) == pytest.approx((expected.difference, expected.low, expected.high))
        assert one.p == pytest.approx(expected.p)
