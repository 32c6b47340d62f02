"""`stage=lexicon`: no network, but the words that tell an annotator's labels apart."""

import math
import re
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from findistill.core.job import Job
from findistill.core.step import Step
from findistill.methods import rows, scoring
from findistill.methods.annotate.steps import annotations
from findistill.methods.datasets import with_tests
from findistill.methods.stage import Stage
from findistill.report.parts import Part
from findistill.stats.alignment import prediction_frame


class Lexicon(Stage):
    """Naive Bayes on the annotator's majority labels: its votes are the artifact that students share."""

    implementation = "moonpack.lexicon:run"

    def parents(self) -> dict[str, Step]:
        return {**with_tests(self.whole), "annotations": annotations(self.whole)}


def run(job: Job) -> None:
    """Leave `words.csv`, a column a label, and predictions, metrics and figures of the test rows."""
    tests, labels = rows.test_sets(job), rows.dataset(job).labels
    votes = pd.read_parquet(job.parents["annotations"] / "annotations.parquet")
    votes = rows.drop_test_overlap(votes[votes["label"].notna()], tests)
    weights = _weights(votes, labels.names, job.config.lexicon.smoothing)
    weights.to_csv(job.folder / "words.csv", index_label="word")
    job.metrics["data/kept"] = len(votes)
    for prefix, (texts, names) in tests.items():
        logits = np.array([weights.reindex(_words(text)).fillna(0.0).sum() for text in texts["text"]])
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        predicted = [labels.names[column] for column in shares.argmax(axis=1)]
        scoring.record(job, prefix, prediction_frame(texts, shares, predicted, names.names), names.names)
    scoring.summary(job)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _weights(votes: pd.DataFrame, names: tuple[str, ...], smoothing: float) -> pd.DataFrame:
    """(words, labels): log of a word's smoothed share of a label's words."""
    counts = {name: Counter(word for text in votes[votes["label"] == name]["text"] for word in _words(text)) for name in names}
    known = sorted(set().union(*counts.values()))
    return pd.DataFrame(
        {
            name: [math.log((own[word] + smoothing) / (own.total() + smoothing * len(known))) for word in known]
            for name, own in counts.items()
        },
        index=known,
    )


class LexiconPart(Part):
    def name(self, config: Any, metrics: Any) -> str:
        return f"lexicon, smoothing {config['lexicon']['smoothing']:g}"


PART = LexiconPart(kind="lexicon", noun="lexicon")
