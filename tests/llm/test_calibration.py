import math

import numpy as np
import pytest

from findistill.data.labels import LabelSet
from findistill.llm.calibration import from_labelled, from_texts, none, normalised

LABELS = LabelSet(("negative", "neutral", "positive"))


def test_batch_calibration_removes_a_liking_shared_by_all_texts() -> None:
    rows = [{"negative": -0.1 - i, "neutral": -3.0, "positive": -3.0 - i} for i in (0, 1)]
    first, second = (from_texts(rows, LABELS).apply(row) for row in rows)
    assert max(first, key=first.__getitem__) != "neutral"
    assert max(second, key=second.__getitem__) == "neutral"
    assert first["negative"] == pytest.approx(first["positive"])


def test_labelled_rows_tell_the_models_liking_and_its_overconfidence() -> None:
    draw = np.random.default_rng(0)
    truth = draw.dirichlet((1, 1, 1), size=3000)
    gold = [LABELS.names[draw.choice(3, p=row)] for row in truth]
    liking = np.array([0.0, -2.0, 1.0])
    rows = [dict(zip(LABELS.names, (2 * np.log(row) + liking).tolist(), strict=True)) for row in truth]
    fitted = from_labelled(rows, gold, LABELS)
    assert fitted.scale == pytest.approx(0.5, abs=0.05)
    assert fitted.offsets["neutral"] - fitted.offsets["positive"] == pytest.approx(1.5, abs=0.2)
    calibrated = [math.exp(value) for value in fitted.apply(rows[0]).values()]
    assert calibrated == pytest.approx(truth[0].tolist(), abs=0.05)


def test_few_rows_of_one_label_do_not_break_the_fit() -> None:
    fitted = from_labelled([{"negative": -1.0, "neutral": -1.0, "positive": -1.0}] * 5, ["neutral"] * 5, LABELS)
    row = fitted.apply({"negative": -1.0, "neutral": -1.0, "positive": -1.0})
    assert all(math.isfinite(value) for value in row.values())
    assert 0.5 < math.exp(row["neutral"]) < 0.95


def test_none_only_normalises() -> None:
    row = {"negative": -2.0, "neutral": -1.0, "positive": -800.0}
    assert none(LABELS).apply(row) == normalised(row)
    assert sum(math.exp(value) for value in normalised(row).values()) == pytest.approx(1)


def test_a_frequent_label_is_favoured_by_the_root_of_its_share() -> None:
    shares = {"negative": 0.04, "neutral": 0.8, "positive": 0.16}
    gold = [name for name, share in shares.items() for _ in range(int(share * 5000))]
    flat = dict.fromkeys(LABELS.names, -1.0)
    fitted = from_labelled([flat] * len(gold), gold, LABELS).apply(flat)
    roots = {name: math.sqrt(share) for name, share in shares.items()}
    for name in LABELS.names:
        assert math.exp(fitted[name]) == pytest.approx(roots[name] / sum(roots.values()), abs=0.01)
