"""The metrics match scikit-learn's, and the fast bootstrap matches a row bootstrap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from findistill.errors import UserError
from findistill.stats.curves import reliability
from findistill.stats.metrics import codes, confusion, evaluate, resampled_confusions, scores

LABELS = ["negative", "neutral", "positive"]
names = st.sampled_from(LABELS)
rows = st.lists(st.tuples(names, st.one_of(st.none(), names)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(rows=rows, seed=st.integers(0, 99))
def test_every_number_is_scikit_learns(rows: list[tuple[str, str | None]], seed: int) -> None:
    gold, predicted = [row[0] for row in rows], [row[1] for row in rows]
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(3), len(rows))
    metrics = evaluate(gold, probabilities, predicted, LABELS, resamples=20)
    guess = [name or "(none)" for name in predicted]
    common = {"labels": LABELS, "zero_division": 0}
    occurring = {"labels": [label for label in LABELS if label in {*gold, *predicted}], "zero_division": 0}
    expected = {
        "test/accuracy": reference.accuracy_score(gold, guess),
        "test/macro_f1": reference.f1_score(gold, guess, average="macro", **occurring),
        "test/weighted_f1": reference.f1_score(gold, guess, average="weighted", **common),
        "test/macro_precision": reference.precision_score(gold, guess, average="macro", **occurring),
        "test/macro_recall": reference.recall_score(gold, guess, average="macro", **occurring),
        "test/weighted_precision": reference.precision_score(gold, guess, average="weighted", **common),
        "test/coverage": np.mean([name is not None for name in predicted]),
        "test/n": len(rows),
    }
    per_label = reference.precision_recall_fscore_support(gold, guess, **common)
    for index, label in enumerate(LABELS):
        for key, values in zip(("precision", "recall", "f1", "support"), per_label, strict=True):
            expected[f"test/{label}/{key}"] = values[index]
        truth = np.array(gold) == label
        if truth.any():
            expected[f"test/{label}/average_precision"] = reference.average_precision_score(truth, probabilities[:, index])
        else:
            assert f"test/{label}/average_precision" not in metrics
    one_hot = np.array(gold)[:, None] == np.array(LABELS)
    expected["test/micro_average_precision"] = reference.average_precision_score(one_hot, probabilities, average="micro")
    for key, value in expected.items():
        assert metrics[key] == pytest.approx(value, abs=1e-12), key
    for key in ("accuracy", "macro_f1", "weighted_f1", *(f"{label}/f1" for label in LABELS)):
        assert 0 <= metrics[f"test/{key}_lo"] <= metrics[f"test/{key}_hi"] <= 1


def test_multinomial_over_patterns_is_a_row_bootstrap() -> None:
    rng = np.random.default_rng(0)
    gold = rng.choice(3, 200)
    predicted = np.where(rng.random((2, 200)) < 0.7, gold, rng.choice(3, (2, 200)))
    predicted[0, :5] = -1
    fast = scores(resampled_confusions(gold, predicted, 3, resamples=4000, seed=0))["macro_f1"]
    picks = rng.integers(0, 200, (4000, 200))
    slow = np.array([[scores(confusion(gold[pick], one[pick], 3))["macro_f1"] for pick in picks] for one in predicted])
    assert fast.mean(1) == pytest.approx(slow.mean(1), abs=0.003)
    assert fast.std(1) == pytest.approx(slow.std(1), rel=0.06)
    # the two predictions see the same rows: their joint spread agrees too
    assert np.corrcoef(fast)[0, 1] == pytest.approx(np.corrcoef(slow)[0, 1], abs=0.06)


def test_same_seed_same_bounds_and_chunks_do_not_change_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    gold, predicted = rng.choice(3, 50), rng.choice(3, (1, 50))
    whole = resampled_confusions(gold, predicted, 3, resamples=100, seed=3)
    monkeypatch.setattr("findistill.stats.metrics.CELLS_AT_ONCE", 90)
    np.testing.assert_array_equal(whole, resampled_confusions(gold, predicted, 3, resamples=100, seed=3))
    assert (whole.sum((-1, -2)) == 50).all()


def test_a_single_row() -> None:
    metrics = evaluate(["neutral"], np.array([[0.1, 0.8, 0.1]]), ["neutral"], LABELS, prefix="other")
    assert metrics["other/accuracy"] == metrics["other/accuracy_lo"] == metrics["other/accuracy_hi"] == 1.0
    assert metrics["other/ece"] == pytest.approx(0.2)


def test_no_answer_at_all() -> None:
    metrics = evaluate(["neutral", "positive"], np.full((2, 3), np.nan), [None, None], LABELS)
    assert metrics["test/coverage"] == metrics["test/accuracy"] == 0.0
    assert "test/ece" not in metrics


def test_calibration_error_by_hand() -> None:
    # confidences .9 .9 (one right), .5 (right): |.5 - .9| * 2/3 + |1 - .5| * 1/3
    gold = np.array([0, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]])
    curve = reliability(gold, probabilities, np.array([0, 1, 1]))
    assert curve.ece == pytest.approx(0.4 * 2 / 3 + 0.5 / 3)
    assert curve.count.sum() == 3


def test_calibration_uses_the_predicted_labels_probability() -> None:
    curve = reliability(np.array([1]), np.array([[0.7, 0.3]]), np.array([1]))
    assert curve.ece == pytest.approx(0.7)


def test_unknown_names_and_missing_gold_are_the_users() -> None:
    shares = np.full((1, 3), 1 / 3)
    with pytest.raises(UserError, match="gold label 'bullish' is not one of"):
        evaluate(["bullish"], shares, ["neutral"], LABELS)
    with pytest.raises(UserError, match="prediction 'up'"):
        evaluate(["neutral"], shares, ["up"], LABELS)
    with pytest.raises(UserError, match="no rows"):
        evaluate([], np.empty((0, 3)), [], LABELS)
    with pytest.raises(UserError, match="row 0 has no gold label"):
        evaluate([None], shares, ["neutral"], LABELS)  # type: ignore[list-item]


def test_missing_names_of_every_kind() -> None:
    import pandas as pd

    assert codes([None, float("nan"), pd.NA, "neutral"], LABELS, what="prediction").tolist() == [-1, -1, -1, 1]
