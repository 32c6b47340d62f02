import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from sklearn.utils.class_weight import compute_class_weight

from findistill.errors import UserError
from findistill.learning.objectives import (
    GRID,
    Objective,
    Scale,
    Thresholds,
    balanced_weights,
    cross_entropy,
    macro_f1,
    scalar_error,
    share_error,
)
from findistill.settings.schema import Distill

NAMES = ("negative", "neutral", "positive")
LOGITS = [[2.0, -1.0, 0.5], [0.0, 0.3, -0.2], [-4.0, 1.0, 1.5], [0.1, 0.1, 0.1]]
SHARES = [[0.75, 0.25, 0.0], [0.0, 1.0, 0.0], [0.125, 0.25, 0.625], [0.5, 0.0, 0.5]]
HARD = [0, 1, 2, 2]


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def tensors(logits: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.tensor(logits), torch.tensor(SHARES), torch.tensor(HARD)


def test_cls_is_cross_entropy_on_the_hard_label() -> None:
    naive = sum(-math.log(softmax(row)[label]) for row, label in zip(LOGITS, HARD, strict=True)) / 4
    assert float(cross_entropy(*tensors(LOGITS))) == pytest.approx(naive, rel=1e-5)


def test_class_weights_and_smoothing_by_hand() -> None:
    weights = [0.5, 1.0, 2.0]
    terms = [-weights[label] * math.log(softmax(row)[label]) for row, label in zip(LOGITS, HARD, strict=True)]
    naive = sum(terms) / sum(weights[label] for label in HARD)
    assert float(cross_entropy(*tensors(LOGITS), weights=torch.tensor(weights))) == pytest.approx(naive, rel=1e-5)
    smoothed = 0.0
    for row, label in zip(LOGITS, HARD, strict=True):
        smoothed -= sum((0.9 * (i == label) + 0.1 / 3) * math.log(p) for i, p in enumerate(softmax(row))) / 4
    assert float(cross_entropy(*tensors(LOGITS), label_smoothing=0.1)) == pytest.approx(smoothed, rel=1e-5)


def test_reg_sums_over_labels_and_averages_over_examples() -> None:
    naive = 0.0
    for row, shares in zip(LOGITS, SHARES, strict=True):
        naive += sum((p - share) ** 2 for p, share in zip(softmax(row), shares, strict=True)) / 4
    assert float(share_error(*tensors(LOGITS))) == pytest.approx(naive, rel=1e-5)


def test_scalar_reg_regresses_positive_minus_negative() -> None:
    scores = [[0.3], [-1.2], [2.0], [0.0]]
    naive = sum((math.tanh(s[0]) - (shares[2] - shares[0])) ** 2 for s, shares in zip(scores, SHARES, strict=True)) / 4
    assert float(scalar_error(*tensors(scores), positive=2, negative=0)) == pytest.approx(naive, rel=1e-5)


def test_balanced_weights_are_scikit_learns() -> None:
    hard = np.array([0, 0, 0, 1, 2, 2])
    assert balanced_weights(hard, 3) == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=hard))
    assert balanced_weights(np.array([0, 2]), 3)[1] == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_macro_f1_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    gold, predicted = np.array(pairs).T
    expected = f1_score(gold, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
    assert macro_f1(gold, predicted, 3) == pytest.approx(expected)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.sampled_from(GRID), st.sampled_from(GRID))
def test_the_largest_share_is_the_class_between_the_thresholds(scores: list[float], a: float, b: float) -> None:
    low, high = sorted((float(a), float(b)))
    if low == high:
        return
    shares = Scale.of(NAMES).shares(np.array(scores), Thresholds(low, high))
    assert shares.sum(axis=1) == pytest.approx(1) and (shares >= 0).all()
    for score, row in zip(scores, shares, strict=True):
        if min(abs(score - low), abs(score - high)) > 1e-6:
            assert NAMES[row.argmax()] == ("negative" if score < low else "positive" if score > high else "neutral")


def test_shares_follow_label_names_not_positions() -> None:
    shares = Scale.of(("positive", "negative")).shares(np.array([-0.9, 0.1, 0.4]), Thresholds(0.2, 0.2))
    assert shares.argmax(axis=1).tolist() == [1, 1, 0]


def test_thresholds_separate_what_can_be_separated() -> None:
    scores = np.array([-0.8, -0.12, 0.02, 0.42, 0.58, 0.9])
    hard = np.array([0, 0, 1, 1, 2, 2])
    chosen = Scale.of(NAMES).choose(scores, hard)
    assert -0.12 < chosen.negative < 0.02 and 0.42 < chosen.positive < 0.58


def test_thresholds_prefer_thirds_among_equals() -> None:
    chosen = Scale.of(NAMES).choose(np.array([-0.9, 0.0, 0.9]), np.array([0, 1, 2]))
    assert (chosen.negative, chosen.positive) == (-0.35, 0.35)


@pytest.mark.parametrize(
    ("settings", "names", "named"),
    [
        ({"objective": "reg", "target": "scalar"}, ("down", "up"), "distill.target=scalar"),
        ({"objective": "reg", "target": "rank"}, NAMES, "distill.target=rank"),
        ({"objective": "mse"}, NAMES, "distill.objective=mse"),
        ({"objective": "cls", "class_weights": "square"}, NAMES, "distill.class_weights=square"),
        ({"objective": "reg", "label_smoothing": 0.1}, NAMES, "distill.label_smoothing"),
    ],
)
def test_contradictory_settings_are_named(settings: dict[str, object], names: tuple[str, ...], named: str) -> None:
    with pytest.raises(UserError, match=named):
        Objective.of(Distill(**settings), names, np.array(HARD))  # type: ignore[arg-type]
