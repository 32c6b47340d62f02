"""Logistic regression on words and on embeddings: its predictions, the choice of its penalty, and the rows it needs."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold, cross_val_score

from findistill.models.embeddings import embed_once
from findistill.models.linear import KINDS, PENALTIES, LinearClassifier, fit_linear, fit_logistic, in_their_span

UP = ["profit rose", "sales grew strongly", "shares gained", "orders rose again", "the margin grew", "revenue gained pace"]
DOWN = ["profit fell", "sales shrank badly", "shares lost", "orders fell again", "the margin shrank", "revenue lost pace"]
FLAT = ["the board met", "the office moved", "a notice was filed", "the meeting is in May", "the board moved", "a filing is due"]


def corpus(*groups: list[str]) -> tuple[list[str], list[str]]:
    names = ("up", "down", "flat")
    return [text for group in groups for text in group], [name for name, group in zip(names, groups, strict=False) for _ in group]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [(UP, DOWN), (UP, DOWN, FLAT)], ids=["two labels", "three labels"])
def test_it_learns_the_labels_of_its_columns(kind: str, groups: tuple[list[str], ...]) -> None:
    texts, labels = corpus(*groups)
    model = fit_linear(kind, texts, labels)
    shares = softmax(model.logits(texts), axis=1)
    assert set(model.labels) == set(labels) and shares.shape == (len(texts), len(groups))
    predicted = [model.labels[column] for column in shares.argmax(1)]
    assert np.mean([a == b for a, b in zip(predicted, labels, strict=True)]) > 0.9
    [rose, fell] = model.logits(["earnings rose", "earnings fell"])
    up, down = model.labels.index("up"), model.labels.index("down")
    assert rose[up] - rose[down] > fell[up] - fell[down]


def test_two_labels_have_the_probabilities_of_scikit_learn() -> None:
    texts, labels = corpus(UP, DOWN)
    model = fit_linear("embeddings", texts, labels)
    vectors = embed_once(texts)
    same = [
        own
        for penalty in PENALTIES["embeddings"]
        if np.allclose(
            softmax(model.logits(texts), axis=1),
            own := LogisticRegression(C=penalty, max_iter=500).fit(vectors, labels).predict_proba(vectors),
            atol=0.01,
        )
    ]
    assert same  # the probabilities are those of one candidate penalty


def test_in_the_span_of_few_texts_the_fit_is_the_same() -> None:
    texts, labels = corpus(UP, DOWN, FLAT)
    texts, labels = [*texts, texts[0]], [*labels, "up"]  # a duplicate adds no direction to the span
    features = TfidfVectorizer().fit_transform(texts)
    coordinates, texts_of = in_their_span(features)
    rank = np.linalg.matrix_rank(features.toarray())
    assert coordinates.shape == (19, rank) and rank < 19
    assert np.allclose(coordinates @ coordinates.T, (features @ features.T).toarray())
    assert np.allclose(coordinates @ texts_of @ features, features.toarray())
    here, there = (fit_logistic(each, np.array(labels), PENALTIES["tfidf"]) for each in (coordinates, features))
    assert here.C_ == there.C_ and np.allclose(here.coef_ @ texts_of @ features, there.coef_, atol=0.01)
    assert np.allclose(here.intercept_, there.intercept_, atol=0.01)


def test_the_penalty_is_the_best_of_cross_validation() -> None:
    rng = np.random.default_rng(0)
    texts, labels = corpus(UP, DOWN, FLAT)
    noisy = [labels[row] if rng.random() < 0.8 else "flat" for row in range(len(labels))]
    vectors, gold = embed_once(texts), np.array(noisy)
    folds = StratifiedKFold(min(5, int(np.unique(gold, return_counts=True)[1].min())), shuffle=True, random_state=0)
    scores = {
        penalty: cross_val_score(LogisticRegression(C=penalty, max_iter=500), vectors, gold, cv=folds, scoring="f1_macro").mean()
        for penalty in PENALTIES["embeddings"]
    }
    best = max(scores, key=scores.__getitem__)
    expected = LogisticRegression(C=best, max_iter=500).fit(vectors, gold).predict(vectors)
    model = fit_linear("embeddings", texts, noisy)
    predicted = [model.labels[column] for column in model.logits(texts).argmax(1)]
    assert f1_score(predicted, expected, average="macro") == pytest.approx(1.0)


def test_a_label_with_one_row_is_no_trouble() -> None:
    texts, labels = corpus(UP, DOWN)
    model = fit_linear("tfidf", [*texts, "the board met"], [*labels, "flat"])
    assert model.logits(["the board met"]).argmax() == model.labels.index("flat")


def test_words_of_one_character_and_of_any_script_count() -> None:
    model = fit_linear("tfidf", ["涨 了", "跌 了"] * 3, ["up", "down"] * 3)
    assert [model.labels[column] for column in model.logits(["涨 了 很多", "跌 了 很多"]).argmax(1)] == ["up", "down"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_saved_without_pickle_and_gives_the_same_numbers(kind: str, tmp_path: Path) -> None:
    texts, labels = corpus(UP, DOWN, FLAT)
    model = fit_linear(kind, texts, labels)
    model.save(tmp_path / "run" / "model")
    assert {path.suffix for path in (tmp_path / "run" / "model").iterdir()} == {".json", ".safetensors"}
    opened = LinearClassifier.find(tmp_path / "run")  # a run folder is accepted for its model
    assert opened is not None and opened.labels == model.labels
    np.testing.assert_array_equal(opened.logits([*texts, "unseen 三菱 words"]), model.logits([*texts, "unseen 三菱 words"]))
    assert LinearClassifier.find("embedded:minilm_l6") is None
