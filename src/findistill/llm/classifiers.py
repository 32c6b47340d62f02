"""Annotators that are not language models: classifiers fitted to the labelled rows, and regular expressions.

They vote alongside LLMs in `annotate.ensemble`: their errors differ, which is what makes several annotators better than
one.
"""

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from findistill.core.step import load
from findistill.data.labels import LabelSet
from findistill.data.neighbours import nearest, neighbour_vote
from findistill.data.text_key import text_key
from findistill.errors import UserError
from findistill.llm.config import ClassifierLLM, CrossFittedLLM, LabellingFunctions
from findistill.llm.engine import Engine, Request, Response, Sampling
from findistill.llm.prompts import Template
from findistill.models.embeddings import embed_once

FOLDS = 5
LEAST_SHARE = 1e-4  # probability of a label that was not seen, or that no neighbour has


class ClassifierEngine(ClassifierLLM, Engine):
    """A classifier fitted to the labelled rows (`llm=tfidf`, `embeddings`, `neighbours`): seconds, and no requests."""

    def responses(self, requests: Iterable[Request], template: Template, sampling: Sampling) -> Generator[list[Response]]:
        raise UserError(f"llm={self.name} is a classifier and generates no text: use it with stage=annotate.")

    def scores(self, texts: Sequence[str], pool: pd.DataFrame, labels: LabelSet, seed: int) -> np.ndarray:
        """Log-probabilities (n, labels) of the texts. Texts that are in the pool are predicted out of fold.

        Raises:
            UserError: the pool has fewer than two labels, or fewer than four rows.
        """
        pool = pool[pool["label"].isin(labels.names)].reset_index(drop=True)
        if pool["label"].nunique() < 2 or len(pool) < 4:
            raise UserError(
                f"llm={self.name} needs four or more labelled rows and two or more labels, but there are {len(pool)} rows and "
                f"{pool['label'].nunique()} labels: label more rows, or name a labelled data set in shots.source."
            )
        keys = pool["text"].map(text_key)
        place = {key: row for row, key in enumerate(keys)}
        rows = np.array([place.get(text_key(text), -1) for text in texts])  # in the pool; -1: not in it
        out = self._predicted(pool, texts, labels)
        if (rows >= 0).any():
            rarest = int(pool["label"].value_counts().min())
            splitter = load(f"sklearn.model_selection:{'StratifiedKFold' if rarest >= 2 else 'KFold'}")
            folds = splitter(min(FOLDS, rarest) if rarest >= 2 else 2, shuffle=True, random_state=seed)
            own = np.empty((len(pool), len(labels.names)))
            for fitted, left in folds.split(pool, pool["label"]):
                own[left] = self._predicted(pool.iloc[fitted], pool["text"].iloc[left].tolist(), labels)
            out[rows >= 0] = own[rows[rows >= 0]]
        return out

    def _predicted(self, pool: pd.DataFrame, texts: Sequence[str], labels: LabelSet) -> np.ndarray:
        return fit_classifier(self.kind, pool["text"].tolist(), pool["label"].tolist(), labels, k=self.k)(texts)


class CrossFittedEngine(CrossFittedLLM, Engine):
    """A fine-tuned encoder (`llm=encoder`): a step fits and runs its models, see `findistill.methods.cross_fit.folds`."""

    def responses(self, requests: Iterable[Request], template: Template, sampling: Sampling) -> Generator[list[Response]]:
        raise UserError(f"llm={self.name} works only with stage=annotate and stage=student, whose steps train it.")


def fit_classifier(
    kind: str, texts: Sequence[str], gold: Sequence[str], labels: LabelSet, *, k: int
) -> Callable[[Sequence[str]], np.ndarray]:
    """Fit a classifier to labelled texts; returns a function from n texts to log-probabilities (n, labels).

    Args:
        kind: `tfidf`, `embeddings` or `neighbours`.
        gold: the labels; if they are all the same, the neighbours vote whatever the kind.
        k: neighbours that vote.
    """
    if kind == "neighbours" or len(set(gold)) < 2:
        vectors = embed_once(texts)

        def vote(inputs: Sequence[str]) -> np.ndarray:
            indexes, similarities = nearest(embed_once(inputs), vectors, k)
            return np.log(np.clip(neighbour_vote(similarities, indexes, gold, labels), LEAST_SHARE, None))

        return vote
    model = load("findistill.models.linear:fit_linear")(kind, texts, gold)
    columns = [labels.names.index(name) for name in model.labels]

    def classify(inputs: Sequence[str]) -> np.ndarray:
        out = np.full((len(inputs), len(labels.names)), np.log(LEAST_SHARE))
        out[:, columns] = log_softmax(model.logits(inputs), axis=1)
        return out

    return classify


class LabellingFunctionEngine(LabellingFunctions, Engine):
    """Regular expressions, each with a label (`llm=rules`): each one that matches a text is a sample; no match is no vote."""

    def responses(self, requests: Iterable[Request], template: Template, sampling: Sampling) -> Generator[list[Response]]:
        """The labels of the patterns that match, in the order of `llm.rules`, each pattern at most once.

        Raises:
            UserError: `llm.rules` has an unknown label or an invalid regular expression.
        """
        patterns = self._compiled(template)
        for request in requests:
            labels = [label for label, pattern in patterns if pattern.search(request.text)]
            samples = [at for at in request.samples if at < len(labels)]
            yield [Response(request.id, at, raw=labels[at], label=labels[at], attempts=0) for at in samples]

    def _compiled(self, template: Template) -> list[tuple[str, re.Pattern[str]]]:
        compiled = []
        if not isinstance(self.rules, Mapping):
            raise UserError(f"llm.rules={self.rules}: must map labels to patterns: 'llm.rules={{positive: [profit rose]}}'.")
        for label, patterns in self.rules.items():
            if label not in template.words:
                raise UserError(f"llm.rules.{label} is not a label; the labels are {', '.join(template.words)}.")
            for pattern in patterns if isinstance(patterns, Sequence) and not isinstance(patterns, str) else [patterns]:
                try:
                    compiled.append((str(label), re.compile(str(pattern), re.IGNORECASE)))
                except re.error as error:
                    raise UserError(f"llm.rules.{label}: {pattern!r} is not a valid regular expression ({error}).") from error
        return compiled
