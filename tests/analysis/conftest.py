"""A made-up study with known effects: no real text, no trained model."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from findistill.analysis.methods import Run

LABELS = ("negative", "neutral", "positive")
SECRET = "a text that must not leave the data"


def make_run(
    method: str,
    kind: str,
    seed: int | None,
    *,
    skill: float,
    config: dict[str, Any],
    metrics: dict[str, float] | None = None,
    n: int = 300,
) -> Run:
    """Predictions on n rows that are the same for every run; the higher `skill`, the more of them are right."""
    shared = np.random.default_rng(7)
    gold = shared.choice(3, n, p=[0.2, 0.5, 0.3])
    noise = shared.normal(size=(n, 3))
    own = np.random.default_rng(sum(map(ord, method)) * 31 + (seed or 0)).normal(size=(n, 3))
    logits = noise + 0.4 * own + skill * np.eye(3)[gold]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    frame = pd.DataFrame(
        {
            "id": [f"row-{index:04d}" for index in range(n)],
            "text": SECRET,
            "label": [LABELS[index] for index in gold],
            "predicted": [LABELS[index] for index in probabilities.argmax(1)],
        }
    )
    for index, label in enumerate(LABELS):
        frame[f"p_{label}"] = probabilities[:, index]
    return Run(method, kind, seed, config, metrics or {}, frame, None, {"device": "cpu"})


def student(objective: str, threshold: int, seed: int, skill: float, **more: Any) -> Run:
    """One distilled student as the student stage leaves it."""
    config = {
        "seed": seed,
        "study": "s",
        "data": {"name": "made_up"},
        "annotate": {"samples": 8},
        "student": {"name": "tiny"},
        "distill": {"objective": objective, "min_agreement": threshold, "votes": "annotator"},
    }
    kept = {5: 0.85, 6: 0.7, 7: 0.5, 8: 0.3}[threshold]
    metrics = {
        "val/macro_f1": skill / 4,
        "data/kept": 1000 * kept,
        "data/kept_share": kept,
        "time/train_s": 10.0,
        "other_set/accuracy": 0.5 + seed / 10,
    }
    return make_run(f"{objective.upper()} ≥{threshold}", "student", seed, skill=skill, config=config, metrics=metrics, **more)


@pytest.fixture
def labels() -> tuple[str, ...]:
    return LABELS


@pytest.fixture
def new_student() -> Callable[..., Run]:
    return student


@pytest.fixture
def new_run() -> Callable[..., Run]:
    return make_run


@pytest.fixture
def runs() -> list[Run]:
    """CLS and REG at two thresholds and two seeds, REG clearly better; a teacher; an annotator with agreement."""
    found = [
        student(objective, threshold, seed, skill)
        for objective, threshold, skill in (("cls", 5, 0.8), ("cls", 8, 1.0), ("reg", 5, 2.4), ("reg", 8, 1.6))
        for seed in (0, 1)
    ]
    data = {"data": {"name": "made_up"}}
    found += [
        make_run("teacher", "teacher", seed, skill=3.0, config={"seed": seed, "teacher": {"name": "t"}, **data})
        for seed in (0, 1)
    ]
    annotator = make_run("annotator (llm, 8 samples)", "baseline", None, skill=1.0, config=data)
    frame = annotator.predictions
    frame["agreement"] = np.where(frame["predicted"] == frame["label"], 8, 5)
    frame["n_samples"] = 8
    frame["predicted"] = frame["predicted"].astype(object)
    frame.loc[0, "predicted"] = None
    frame.loc[0, [f"p_{label}" for label in LABELS]] = np.nan
    return [*found, annotator]
