"""Precision-recall curves against scikit-learn and against the definition."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from findistill.stats.curves import average_precisions, precision_recall


def test_curves_and_their_averages() -> None:
    rng = np.random.default_rng(0)
    gold, shares = rng.choice(3, 80), rng.dirichlet(np.ones(3), 80)
    curves = precision_recall(gold, shares)
    assert curves[2].average_precision == pytest.approx(average_precision_score(gold == 2, shares[:, 2]))
    assert curves["micro"].average_precision == pytest.approx(average_precision_score(np.eye(3)[gold], shares, average="micro"))
    assert {key: curve.average_precision for key, curve in curves.items()} == average_precisions(gold, shares)


def test_precision_at_a_wanted_recall_is_of_the_highest_threshold_that_reaches_it() -> None:
    rng = np.random.default_rng(1)
    gold = rng.choice(2, 60)
    scores = np.round(rng.random(60), 1)  # ties
    curve = precision_recall(gold, np.column_stack([1 - scores, scores]))[1]
    for recall in (0.2, 0.5, 0.77, 1.0):
        for threshold in sorted(set(scores), reverse=True):
            chosen = scores >= threshold
            if gold[chosen].sum() / gold.sum() >= recall:
                assert curve.at(np.array([recall]))[0] == pytest.approx(gold[chosen].mean())
                break
    assert curve.at(np.array([0.0]))[0] == 1.0


def test_absent_labels_have_no_curve_and_missing_scores_rank_last() -> None:
    shares = np.array([[0.6, 0.3, 0.1], [np.nan, np.nan, np.nan]])
    curves = precision_recall(np.array([0, 0]), shares)
    assert set(curves) == {0, "micro"}
    assert curves[0].recall[-2] == 0.5
