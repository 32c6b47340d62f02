"""Predictions mapped to a test set's labels, whatever the order and number of the model's outputs."""

import numpy as np

from findistill.stats.alignment import align_predictions

LABELS = ("negative", "neutral", "positive")


def test_predictions_keep_their_label_where_the_sets_are_equal() -> None:
    shares = np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])
    aligned, predicted = align_predictions(shares, ["Neutral", None], ("Positive", "Negative", "Neutral"), LABELS, model="m")
    np.testing.assert_array_equal(aligned, shares[:, [1, 2, 0]])
    assert predicted == ["neutral", None]  # not the most probable: a scalar model decides by thresholds


def test_other_labels_are_left_out_and_the_rest_renormalised() -> None:
    shares = np.array([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]])
    aligned, predicted = align_predictions(shares, ["neutral", "neutral"], LABELS, ("positive", "negative"), model="m")
    np.testing.assert_allclose(aligned, [[0.6, 0.4], [0.5, 0.5]])
    assert predicted == ["positive", None]


def test_outputs_of_one_label_add_up() -> None:
    stars = ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]
    shares = np.array([[0.3, 0.2, 0.4, 0.1, 0.0]])
    labels = ["negative", "negative", "neutral", "positive", "positive"]
    aligned, predicted = align_predictions(shares, ["3 stars"], stars, LABELS, model="m", label_map=labels)
    np.testing.assert_allclose(aligned, [[0.5, 0.4, 0.1]])
    assert predicted == ["negative"]
