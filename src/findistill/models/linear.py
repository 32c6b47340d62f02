"""Logistic regression on words or on frozen sentence embeddings: a baseline to try first, fitted in seconds.

`tfidf` uses words, word pairs and character n-grams of two to five characters; `embeddings` those of all-MiniLM-L6-v2.
The penalty is chosen by cross-validated macro F1 on the training rows; there is nothing else to set.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from scipy.sparse import hstack
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from findistill.core.files import read_json, write_json
from findistill.models.embeddings import MODEL, embed_once
from findistill.models.folder import LINEAR, check_folder, is_linear
from findistill.models.weights import locate

KINDS = ("tfidf", "embeddings")
# Inverse strengths of the penalty, as in scikit-learn.
PENALTIES = {"tfidf": (0.25, 1.0, 4.0, 16.0, 64.0), "embeddings": (1.0, 4.0, 16.0, 64.0, 256.0)}
FOLDS = 5
MACRO_F1 = make_scorer(f1_score, average="macro", zero_division=0)  # scikit-learn 1.9 refuses its own "f1_macro" of two labels
RARE_FROM = 500  # from this many texts on, words that occur in only one text are left out
# Below this many texts, the fit on words is several times as fast in their span, with the same result. With 1,000 it gains a
# third, with 2,000 it is slower; and if the weakest penalty has not converged, the two stop at slightly different weights.
IN_SPAN_BELOW = 500


@dataclass(frozen=True)
class LinearClassifier:
    """A fitted text classifier; `labels` names the columns of its probabilities."""

    kind: str
    labels: tuple[str, ...]
    vectorizers: tuple[TfidfVectorizer, ...]
    weights: np.ndarray  # (labels, features)
    bias: np.ndarray  # (labels,)

    @property
    def parameters(self) -> int:
        """The number of parameters, including those of the frozen encoder."""
        own = self.weights.size + self.bias.size
        if self.vectorizers:
            return own
        with safe_open(Path(locate(MODEL)) / "model.safetensors", "numpy") as file:
            return own + sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """(n, labels) float64; their softmax is the probability of each label."""
        words = [each.transform(texts) for each in self.vectorizers]
        features = hstack(words).tocsr() if words else embed_once(texts)
        return np.asarray(features @ self.weights.T + self.bias)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(n, labels) float64."""
        return np.asarray(softmax(self.logits(texts), axis=1))

    def save(self, folder: Path) -> None:
        """Write `config.json`, with labels and vocabularies, and `model.safetensors` to `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"weights": self.weights, "bias": self.bias}
        arrays |= {f"idf/{at}": each.idf_ for at, each in enumerate(self.vectorizers)}
        save_file({name: np.ascontiguousarray(array, np.float64) for name, array in arrays.items()}, folder / "model.safetensors")
        vocabularies = [each.get_feature_names_out().tolist() for each in self.vectorizers]
        write_json(folder / "config.json", {LINEAR: self.kind, "labels": self.labels, "vocabularies": vocabularies})

    @classmethod
    def find(cls, reference: str | Path) -> "LinearClassifier | None":
        """The linear classifier in a run folder or a model folder; None if that holds another model.

        Raises:
            UserError: the folder is damaged.
        """
        if not is_linear(reference):
            return None
        folder = Path(locate(str(reference)))
        check_folder(str(reference), str(folder), "classifier")
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> "LinearClassifier":
        """The classifier that `save` wrote."""
        config, arrays = read_json(folder / "config.json"), load_file(folder / "model.safetensors")
        vectorizers = _vectorizers() if config["vocabularies"] else ()
        for at, (vectorizer, terms) in enumerate(zip(vectorizers, config["vocabularies"], strict=True)):
            vectorizer.vocabulary = {term: place for place, term in enumerate(terms)}
            vectorizer.idf_ = arrays[f"idf/{at}"]
        return cls(config[LINEAR], tuple(config["labels"]), vectorizers, arrays["weights"], arrays["bias"])


def _vectorizers(rarest: tuple[int, int] = (1, 1)) -> tuple[TfidfVectorizer, TfidfVectorizer]:
    """Those of words and of character n-grams, without those in fewer than `rarest` texts."""
    return (
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=rarest[0], token_pattern=r"(?u)\b\w+\b"),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=rarest[1]),
    )


def fit_linear(kind: str, texts: Sequence[str], labels: Sequence[str], *, seed: int = 0) -> LinearClassifier:
    """Fit to n texts and their labels, at least two different ones; `seed` draws the folds."""
    vectorizers: tuple[TfidfVectorizer, ...] = ()
    if kind == "embeddings":
        features = embed_once(texts)
    else:
        vectorizers = _vectorizers((2, 3) if len(texts) >= RARE_FROM else (1, 1))
        features = hstack([each.fit_transform(texts) for each in vectorizers]).tocsr()
    coordinates, texts_of = in_their_span(features) if vectorizers and len(texts) < IN_SPAN_BELOW else (features, None)
    model = fit_logistic(coordinates, np.asarray(labels), PENALTIES[kind], seed)
    weights, bias = model.coef_ if texts_of is None else model.coef_ @ texts_of @ features, model.intercept_
    if len(weights) == 1:  # of two labels, scikit-learn keeps only the second's
        weights, bias = np.vstack([np.zeros_like(weights), weights]), np.concatenate([[0.0], bias])
    return LinearClassifier(kind, tuple(map(str, model.classes_)), vectorizers, weights, bias)


def in_their_span(features: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sparse rows (n, d) in an orthonormal basis of their span: (n, r), and the basis as combinations of the rows, (r, n).

    Weights under a squared penalty lie in that span, and have the same norm in either basis: the same fit, with hundreds of
    columns instead of tens of thousands.
    """
    squares, basis = np.linalg.eigh((features @ features.T).toarray())
    nonzero = squares > squares[-1] * len(squares) * np.finfo(squares.dtype).eps
    lengths, basis = np.sqrt(squares[nonzero]), basis[:, nonzero]
    return basis * lengths, (basis / lengths).T


def fit_logistic(features: Any, labels: np.ndarray, penalties: Sequence[float], seed: int = 0) -> Any:
    """scikit-learn's logistic regression on features (n, d) and labels (n,), its penalty chosen by cross-validated macro F1."""
    rarest = int(np.unique(labels, return_counts=True)[1].min())
    if rarest >= 2:
        folds = StratifiedKFold(min(FOLDS, rarest), shuffle=True, random_state=seed)
        model = LogisticRegressionCV(
            Cs=penalties, cv=folds, scoring=MACRO_F1, max_iter=500, l1_ratios=(0,), use_legacy_attributes=False
        )
    else:
        model = LogisticRegression(C=penalties[len(penalties) // 2], max_iter=500)
    # One thread: the products are so small that several, which wait for each other, take two to five times as long.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the weakest penalty, whose scores are near their limit by then
        warnings.filterwarnings("ignore", "Note that pos_label")  # which scikit-learn itself adds to the scorer
        return model.fit(features, labels)
