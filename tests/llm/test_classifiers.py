"""Annotators that are not language models: classifiers trained on the labelled rows, and regular expressions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.llm.annotate import annotate
from findistill.llm.classifiers import ClassifierEngine, LabellingFunctionEngine
from findistill.llm.config import Annotate, ClassifierLLM, LabellingFunctions, Prompt, Shots

LABELS = LabelSet(("negative", "neutral", "positive"))
SAYS = {
    "positive": ["profit rose", "sales grew", "orders rose", "the margin grew", "revenue rose", "output grew"],
    "negative": ["profit fell", "sales shrank", "orders fell", "the margin shrank", "revenue fell", "output shrank"],
}
POOL = pd.DataFrame([{"text": text, "label": label} for label, texts in SAYS.items() for text in texts])
TEXTS = pd.DataFrame({"id": ["a", "b", "c"], "text": ["earnings rose", "earnings fell", "Profit rose!"], "label": None})


def run(engine: Any, llm: Any, folder: Path, texts: pd.DataFrame = TEXTS, pool: pd.DataFrame = POOL) -> pd.DataFrame:
    prompt = Prompt(name="direct", instruction="Classify.")
    annotate(texts, pool, LABELS, llm, prompt, Shots(k=4), Annotate(), folder / "out", cache=folder / "cache", engine=engine)
    return pd.read_parquet(folder / "out" / "annotations.parquet")


@pytest.mark.parametrize("kind", ["tfidf", "embeddings", "neighbours"])
def test_a_classifier_votes_by_its_probabilities(kind: str, tmp_path: Path) -> None:
    settings = {"name": kind, "model": kind, "kind": kind, "k": 3}
    votes = run(ClassifierEngine(**settings), ClassifierLLM(**settings), tmp_path)
    assert list(votes["label"]) == ["positive", "negative", "positive"]
    assert (votes["n_samples"] == 8).all() and (votes["n_valid"] == 8).all()
    shares = votes[[f"p_{name}" for name in LABELS.names]].to_numpy()
    assert shares.sum(1) == pytest.approx(1.0, abs=0.01) and (shares[:, 1] < 0.05).all()  # no labelled row is neutral
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["requests"], summary["cost_usd"]) == (0, 0.0)


def test_a_text_of_the_labelled_rows_is_predicted_by_a_model_without_it() -> None:
    """With random labels, a model trained on a text is always right about it, any other only by chance."""
    rng = np.random.default_rng(0)
    words = np.array(["bank", "oil", "tax", "fund", "gold", "rate", "bond", "loan", "mine", "ship", "rail", "farm"])
    texts = [" ".join(rng.permutation(words)[:5]) for _ in range(120)]
    pool = pd.DataFrame({"text": texts, "label": rng.choice(["negative", "positive"], 120)})
    engine = ClassifierEngine(name="tfidf", model="tfidf", kind="tfidf")
    own = engine.scores(pool["text"].tolist(), pool, LABELS, seed=0)
    right = np.mean([LABELS.names[column] == label for column, label in zip(own.argmax(1), pool["label"], strict=True)])
    assert 0.3 < right < 0.7
    again = engine.scores([text.upper() for text in pool["text"]], pool, LABELS, seed=0)
    np.testing.assert_allclose(own, again)  # the same texts in upper case


@pytest.mark.parametrize("pool", [POOL.head(0), POOL.head(5), POOL.iloc[[0, -1]]], ids=["none", "one label", "two rows"])
def test_too_few_labelled_rows_are_said(pool: pd.DataFrame, tmp_path: Path) -> None:
    settings = {"name": "tfidf", "model": "tfidf", "kind": "tfidf"}
    with pytest.raises(UserError, match="llm=tfidf needs four or more labelled rows and two or more labels, but there are"):
        run(ClassifierEngine(**settings), ClassifierLLM(**settings), tmp_path, pool=pool)


def rules(patterns: Any) -> dict[str, Any]:
    return {"name": "rules", "model": "rules", "rules": patterns}


def test_every_pattern_that_matches_is_a_vote(tmp_path: Path) -> None:
    settings = rules({"positive": [r"\b(rose|grew)\b", "^profit"], "negative": r"\bfell\b"})
    texts = pd.DataFrame({"id": ["a", "b", "c"], "text": ["Profit rose", "Profit fell", "A meeting"], "label": None})
    votes = run(LabellingFunctionEngine(**settings), LabellingFunctions(**settings), tmp_path, texts)
    assert list(votes["label"].fillna("none")) == ["positive", "positive", "none"]
    assert list(votes["n_samples"]) == [2, 2, 0] and list(votes["soft_negative"]) == [0.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [({"good": "rose"}, "llm.rules.good is not a label; the labels are negative, neutral, positive"),
     ({"positive": "(rose"}, r"llm.rules.positive: '\(rose' is not a valid regular expression"),
     ({"positive": ["rose", 3, "(fell"]}, r"llm.rules.positive: '\(fell' is"),
     (["rose", "fell"], "llm.rules=.*must map labels to patterns"), ("rose", "must map labels"), (None, "must map labels")],
)  # fmt: skip
def test_mistakes_in_rules(patterns: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run(LabellingFunctionEngine(**rules(patterns)), LabellingFunctions(**rules(patterns)), tmp_path)
