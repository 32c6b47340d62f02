"""What each baseline predicts."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from findistill.core.files import read_json, write_json
from findistill.core.store import Work
from findistill.data.labels import LabelSet
from findistill.data.splits import sample
from findistill.errors import UserError
from findistill.inference.predict import open_classifier
from findistill.llm.classifiers import fit_classifier
from findistill.methods import rows as reading
from findistill.methods.baselines.steps import ANNOTATED, LIMITED, TESTS
from findistill.stats.alignment import align_predictions, prediction_frame
from findistill.stats.metrics import evaluate
from findistill.training.teacher_outputs import mean_logits


@dataclass(frozen=True)
class Answers:
    """Probabilities (n, labels), the predicted label of each row (None: no answer), the column names, further columns."""

    probabilities: np.ndarray
    predicted: Sequence[str | None]
    labels: Sequence[str]
    columns: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, probabilities: np.ndarray, labels: Sequence[str]) -> "Answers":
        """The most probable label of each row."""
        return cls(probabilities, [labels[column] for column in probabilities.argmax(axis=1)], labels)


# A function from rows and the number of their test set to answers; and metrics of the training.
Predictor = tuple[Callable[[pd.DataFrame, int], Answers], dict[str, float]]


def predict_test_sets(work: Work) -> None:
    """Write `predictions_<prefix>.parquet` for every set of rows, and `metrics.json`.

    Raises:
        UserError: there are too few labelled rows apart from those to predict.
    """
    tests = evaluation_sets(work)
    predict, metrics = KINDS[work.step.kind](work, tests)
    section, _, setting = work.step.label_map.partition(".")
    for number, (prefix, (rows, allowed)) in enumerate(tests.items()):
        answers = predict(rows, number)
        # A test set may have fewer labels than the labelled rows.
        probabilities, predicted = align_predictions(
            answers.probabilities, answers.predicted, answers.labels, allowed.names,
            model=str(work.parents.get("model", "baseline")), label_map=work.config[section][setting],
            setting=work.step.label_map,
        )  # fmt: skip
        frame = prediction_frame(rows, probabilities, predicted, allowed.names).assign(**answers.columns)
        frame.to_parquet(work.folder / f"predictions_{prefix}.parquet", index=False)
        metrics |= evaluate(frame["label"].tolist(), probabilities, predicted, allowed.names, prefix=prefix)
    write_json(work.folder / "metrics.json", metrics)


def evaluation_sets(work: Work) -> dict[str, tuple[pd.DataFrame, LabelSet]]:
    """The rows that the jobs are scored on, by metric prefix."""
    config, data = work.config, reading.dataset(work)
    if work.step.rows == ANNOTATED:
        rows = reading.rows_to_annotate(data, config.annotate.limit, config.data.seed)
        return {"test": (rows[rows["label"].notna()], data.labels)}
    tests = reading.test_sets(work)
    if work.step.rows == LIMITED and (limit := config.fewshot.limit) is not None:
        return {name: (sample(rows, limit, config.data.seed, labels), labels) for name, (rows, labels) in tests.items()}
    return tests


def labelled_pool(work: Work, tests: reading.TestSets) -> pd.DataFrame:
    """The labelled rows that the job may use, none of them scored."""
    if work.step.rows == LIMITED:
        tests = reading.test_sets(work)
    return reading.drop_test_overlap(reading.demonstration_pool(work), tests)


def from_labels(
    method: Callable[[Work, pd.DataFrame, LabelSet], Callable[[pd.DataFrame], np.ndarray]], work: Work, tests: reading.TestSets
) -> Predictor:
    """A method fitted to the labelled rows alone, which predicts probabilities of the data's labels."""
    labels, pool = reading.dataset(work).labels, labelled_pool(work, tests)
    if len(pool) < (work.step.k if work.step.rows != TESTS else 1):
        raise UserError(f"{work.step.title()}: not in the report, with only {len(pool)} labelled texts besides those to predict")
    start, processor = time.perf_counter(), time.process_time()
    probabilities = method(work, pool, labels)
    metrics = {"data/kept": len(pool), "time/train_s": time.perf_counter() - start, "time/cpu_s": time.process_time() - processor}
    return (lambda rows, _: Answers.of(probabilities(rows), labels.names)), metrics


def majority(work: Work, pool: pd.DataFrame, labels: LabelSet) -> Callable[[pd.DataFrame], np.ndarray]:
    """The most frequent label, with the labels' shares as probabilities."""
    frequency = pool["label"].value_counts(normalize=True).reindex(list(labels.names), fill_value=0.0)
    return lambda rows: np.tile(frequency.to_numpy(), (len(rows), 1))


def classifier(work: Work, pool: pd.DataFrame, labels: LabelSet) -> Callable[[pd.DataFrame], np.ndarray]:
    """The vote of the nearest labelled texts, or logistic regression on TF-IDF or on frozen embeddings."""
    kind, texts, gold = work.step.kind, pool["text"].tolist(), pool["label"].tolist()
    if kind != "neighbours" and len(set(gold)) < 2:
        raise UserError(f"{work.step.title()}: not in the report, since the labelled texts have only one label")
    predict = fit_classifier(kind, texts, gold, labels, k=work.step.k)
    return lambda rows: softmax(predict(rows["text"].tolist()), axis=1)


def annotator(work: Work, tests: reading.TestSets) -> Predictor:
    """The LLM's vote shares; exact probabilities, where the engine reads them, only break their ties."""
    names = reading.dataset(work).labels.names

    def votes(rows: pd.DataFrame, number: int) -> Answers:
        folder = work.parents[f"annotations/{number}"]
        frame, shares = reading.read_votes(folder, names)
        if f"p_{names[0]}" in frame:
            shares = (shares + 1e-3 * reading.read_votes(folder, names, "p")[1]) / 1.001
        columns = {name: frame[name].to_numpy() for name in ("agreement", "n_samples")}
        return Answers(shares, reading.optional_labels(frame["label"]), names, columns)

    return votes, {}


def trained(work: Work, tests: reading.TestSets) -> Predictor:
    """A trained model: the students' teacher or teachers, or the students' own encoder trained on human labels."""
    folders = [str(folder) for role, folder in work.parents.items() if role.partition("/")[0] == "model"]
    models = [open_classifier(folder) for folder in folders]
    metrics = {"model/parameters": float(sum(model.parameters for model in models))}
    if work.step.kind == "encoder":
        training = read_json(work.parents["model"] / "training.json")
        metrics |= {"data/kept": training["labels"], "time/train_s": training["train_s"], "time/cpu_s": training["cpu_s"]}

    def answers(rows: pd.DataFrame, _: int) -> Answers:
        each = [model(rows["text"].tolist(), work.config.trainer, tokens_cache=work.tokens) for model in models]
        if len(each) == 1:
            return Answers(each[0].probabilities, each[0].predicted, each[0].labels)
        labels = each[0].labels
        ordered = [one.probabilities[:, [one.labels.index(name) for name in labels]] for one in each]
        logits = mean_logits([np.log(probabilities.clip(1e-30)) for probabilities in ordered])  # the students' targets
        return Answers.of(softmax(logits, axis=1), labels)

    return answers, metrics


KINDS: dict[str, Callable[[Work, reading.TestSets], Predictor]] = {
    "majority": partial(from_labels, majority),
    "neighbours": partial(from_labels, classifier),
    "tfidf": partial(from_labels, classifier),
    "embeddings": partial(from_labels, classifier),
    "encoder": trained,
    "annotator": annotator,
    "teacher": trained,
}
