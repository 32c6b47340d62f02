import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from sklearn.utils.class_weight import compute_class_weight

from findistill.errors import UserError
from findistill.models.heads import GRID, Scale, Thresholds, macro_f1
from findistill.training.config import Distill
from findistill.training.objectives import OBJECTIVES, CrossEntropy, Objective, Regression, balanced_weights, objective

SCALAR = Distill(objective="reg", target="scalar")
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
    assert float(CrossEntropy().loss(*tensors(LOGITS))) == pytest.approx(naive, rel=1e-5)


def test_class_weights_and_smoothing_by_hand() -> None:
    weights = [0.5, 1.0, 2.0]
    terms = [-weights[label] * math.log(softmax(row)[label]) for row, label in zip(LOGITS, HARD, strict=True)]
    naive = sum(terms) / sum(weights[label] for label in HARD)
    weighted = CrossEntropy()
    weighted.weights = torch.tensor(weights)
    assert float(weighted.loss(*tensors(LOGITS))) == pytest.approx(naive, rel=1e-5)
    smoothed = 0.0
    for row, label in zip(LOGITS, HARD, strict=True):
        smoothed -= sum((0.9 * (i == label) + 0.1 / 3) * math.log(p) for i, p in enumerate(softmax(row))) / 4
    smooth = CrossEntropy(Distill(objective="cls", label_smoothing=0.1))
    assert float(smooth.loss(*tensors(LOGITS))) == pytest.approx(smoothed, rel=1e-5)


def test_reg_sums_over_labels_and_averages_over_examples() -> None:
    naive = 0.0
    for row, shares in zip(LOGITS, SHARES, strict=True):
        naive += sum((p - share) ** 2 for p, share in zip(softmax(row), shares, strict=True)) / 4
    assert float(Regression(Distill(objective="reg")).loss(*tensors(LOGITS))) == pytest.approx(naive, rel=1e-5)


def test_scalar_reg_regresses_positive_minus_negative() -> None:
    scores = [[0.3], [-1.2], [2.0], [0.0]]
    naive = sum((math.tanh(s[0]) - (shares[2] - shares[0])) ** 2 for s, shares in zip(scores, SHARES, strict=True)) / 4
    assert float(Regression(SCALAR, NAMES).loss(*tensors(scores))) == pytest.approx(naive, rel=1e-5)


def test_balanced_weights_are_scikit_learns() -> None:
    hard = np.array([0, 0, 0, 1, 2, 2])
    assert balanced_weights(hard, 3) == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=hard))
    assert balanced_weights(np.array([0, 2]), 3)[1] == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_macro_f1_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    gold, predicted = np.array(pairs).T
    expected = f1_score(gold, predicted, average="macro", zero_division=0)
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


def test_a_scalar_needs_a_positive_and_a_negative_label() -> None:
    with pytest.raises(UserError, match=r"distill\.target=scalar"):
        Objective.of(SCALAR, ("down", "up"), np.array(HARD))


def test_an_objective_of_ones_own_is_a_registered_class(monkeypatch: pytest.MonkeyPatch) -> None:
    class Focal(Objective):
        def loss(self, logits: torch.Tensor, targets: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
            shares = logits.softmax(-1).gather(1, hard[:, None])
            return (-((1 - shares) ** 2) * shares.log()).mean()

    monkeypatch.setitem(OBJECTIVES, "focal", None)  # so that it is unregistered after the test
    assert objective("focal")(Focal) is Focal
    mine = Objective.of(Distill(objective="focal"), NAMES, np.array(HARD))
    naive = sum(-((1 - p) ** 2) * math.log(p) / 4 for p in (softmax(row)[label] for row, label in zip(LOGITS, HARD, strict=True)))
    assert float(mine.loss(*tensors(LOGITS))) == pytest.approx(naive, rel=1e-5) and mine.scale is None
