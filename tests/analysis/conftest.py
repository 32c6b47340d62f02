"""A made-up study with known effects: no real text, no trained model."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from findistill.analysis import annotators
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


def write_annotation(
    folder: Path, answers: list[list[str | None]], gold: list[str | None], *, dollars: float | None = None
) -> pd.DataFrame:
    """The files of an annotation artifact with these answers, one list a text; gives its annotations."""
    folder.mkdir(parents=True)
    rows = []
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as lines:
        for row, own in enumerate(answers):
            for sample, label in enumerate(own):
                lines.write(json.dumps({"id": f"row-{row:04d}", "sample": sample, "label": label}) + "\n")
            votes = Counter(label for label in own if label is not None)
            hard = max(votes, key=votes.__getitem__, default=None)
            rows.append({
                "id": f"row-{row:04d}", "text": SECRET, "label": hard, "gold": gold[row],
                "agreement": max(votes.values(), default=0), "n_valid": votes.total(), "n_samples": len(own),
                **{f"soft_{name}": votes[name] / max(votes.total(), 1) for name in LABELS},
            })  # fmt: skip
    asked = sum(map(len, answers))
    summary = {
        "texts": len(answers), "samples": asked, "valid": sum(row["n_valid"] for row in rows), "failed": 0,
        "requests": asked, "tokens_in": 100 * asked, "tokens_out": 20 * asked, "seconds": 0.5 * asked, "cost_usd": dollars,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    return pd.DataFrame(rows).astype({"label": object, "gold": object})


def annotator(
    folder: Path,
    llm: str = "small",
    prompt: str = "direct",
    k: int = 4,
    order: int | None = 0,
    *,
    skill: float = 1.0,
    dollars: float | None = None,
    samples: int = 8,
    n: int = 200,
    data: str = "made_up",
    **shots: Any,
) -> Run:
    """An annotate job as `stage=report` collects it: `skill` raises the share of right answers, more so on easy texts."""
    shared = np.random.default_rng(sum(map(ord, data)))
    gold = shared.choice(3, n, p=[0.2, 0.5, 0.3])
    ease = shared.normal(size=(n, 3))
    own = np.random.default_rng(sum(map(ord, f"{llm}{prompt}{k}{order}{shots}")))
    logits = ease + 0.5 * own.normal(size=(n, 3)) + skill * np.eye(3)[gold]
    logits = 1.5 * logits[:, None] + own.gumbel(size=(n, samples, 3))
    readable = own.random((n, samples)) > 0.02
    codes = np.where(readable, logits.argmax(2), -1)
    answers = [[LABELS[code] if code >= 0 else None for code in row] for row in codes]
    voted = write_annotation(folder, answers, [LABELS[code] for code in gold], dollars=dollars)
    found = annotators.measure(voted, folder, samples)
    frame = voted.assign(label=voted["gold"], predicted=voted["label"])
    frame = frame.rename(columns={f"soft_{name}": f"p_{name}" for name in LABELS})
    config = {
        "stage": "annotate",
        "data": {"name": data},
        "llm": {"name": llm, "model": llm},
        "prompt": {"name": prompt, "steps": ["Opinion:"] if prompt == "cot" else []},
        "shots": {"k": k, "selection": "nearest", "source": None, **shots},
        "annotate": {"samples": samples, "limit": n},
    }
    columns = ["id", "text", "label", "predicted", *(f"p_{name}" for name in LABELS)]
    seed = f"{'-' if order is None else order}/0/0"
    return Run(f"{llm} {prompt} k={k}", "annotator", seed, config, found, frame[columns], folder, {"device": "cpu"})


@pytest.fixture
def new_annotation() -> Callable[..., pd.DataFrame]:
    return write_annotation


@pytest.fixture
def new_annotator() -> Callable[..., Run]:
    return annotator
