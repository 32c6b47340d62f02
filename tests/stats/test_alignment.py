"""Labels are matched by name, whatever their order and case."""

import numpy as np
import pytest

from findistill.errors import UserError
from findistill.stats.alignment import align_labels, align_predictions

LABELS = ("negative", "neutral", "positive")


def test_columns_are_found_by_name() -> None:
    assert align_labels(("Positive", "Negative", "Neutral"), LABELS, model="m").tolist() == [1, 2, 0]
    assert align_labels(("up", "Up"), ("Up", "up"), model="m").tolist() == [1, 0]
    assert align_labels(("positive",), LABELS, model="m").tolist() == [-1, -1, 0]


@pytest.mark.parametrize(("names", "complete"), [(("LABEL_0", "LABEL_1"), False), (("positive", "neutral"), True)])
def test_labels_that_do_not_match_are_an_error(names: tuple[str, ...], complete: bool) -> None:
    with pytest.raises(UserError, match=r"the model m has the labels .*negative.*\n.*id2label"):
        align_labels(names, LABELS, model="m", complete=complete)


def test_predictions_keep_their_label_where_the_sets_are_equal() -> None:
    shares = np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])
    found, predicted = align_predictions(shares, ["Neutral", None], ("Positive", "Negative", "Neutral"), LABELS, model="m")
    np.testing.assert_array_equal(found, shares[:, [1, 2, 0]])
    assert predicted == ["neutral", None]  # not the most probable: a scalar model decides by thresholds


def test_other_labels_are_left_out_and_the_rest_renormalised() -> None:
    shares = np.array([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]])
    found, predicted = align_predictions(shares, ["neutral", "neutral"], LABELS, ("positive", "negative"), model="m")
    np.testing.assert_allclose(found, [[0.6, 0.4], [0.5, 0.5]])
    assert predicted == ["positive", None]
