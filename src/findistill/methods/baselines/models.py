"""What each baseline predicts."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from findistill.core.files import write_json
from findistill.core.store import Work
from findistill.data.labels import LabelSet
from findistill.data.neighbours import nearest, neighbour_vote
from findistill.data.splits import sample
from findistill.errors import UserError
from findistill.inference.predict import predict
from findistill.methods import rows as reading
from findistill.methods.baselines.steps import ANNOTATED, LIMITED, TESTS
from findistill.models.embeddings import embed_once
from findistill.models.encoders import open_trained
from findistill.stats.alignment import align_predictions, prediction_frame
from findistill.stats.metrics import evaluate

log = logging.getLogger(__name__)


def predict_test_sets(work: Work) -> None:
    """Leave `predictions_<prefix>.parquet` for every set of rows, and `metrics.json`.

    Raises:
        UserError: there are too few labelled rows apart from those to predict.
    """
    tests, kind, labels = evaluation_sets(work), work.step.kind, reading.dataset(work).labels
    pool = labelled_pool(work, tests)
    if kind in ("majority", "neighbours") and len(pool) < (work.step.k if work.step.rows != TESTS else 1):
        raise UserError(f"no {work.step.title()}: there are only {len(pool)} labelled texts apart from those to predict")
    metrics: dict[str, float] = {}
    section, _, setting = work.step.label_map.partition(".")
    label_map = work.config[section][setting]
    if kind == "teacher":
        model, _ = open_trained(str(work.parents["teacher"]))
        metrics["model/parameters"] = sum(weight.numel() for weight in model.parameters())
    for number, (prefix, (rows, allowed)) in enumerate(tests.items()):
        shares, predicted, names, columns = predictions(work, rows, pool, labels, number)
        reference = str(work.parents.get("teacher", "baseline"))
        # The test set's labels may be fewer than those of the labelled rows.
        probabilities, answers = align_predictions(
            shares, predicted, names, allowed.names, model=reference, label_map=label_map, setting=work.step.label_map
        )
        frame = prediction_frame(rows, probabilities, answers, allowed.names).assign(**columns)
        frame.to_parquet(work.folder / f"predictions_{prefix}.parquet", index=False)
        metrics |= evaluate(frame["label"].tolist(), probabilities, answers, allowed.names, prefix=prefix)
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
    """The labelled rows that the job may know, none that is scored."""
    if work.step.rows == LIMITED:
        tests = reading.test_sets(work)
    return reading.drop_test_overlap(reading.demonstration_pool(work), tests)


def predictions(
    work: Work, rows: pd.DataFrame, pool: pd.DataFrame, labels: LabelSet, number: int
) -> tuple[np.ndarray, Sequence[str | None], Sequence[str], dict[str, Any]]:
    """What the step's baseline predicts for the rows of the test set with this number.

    - majority: the most frequent label, with the labels' shares as probabilities
    - neighbours: the vote of the nearest labelled texts by embedding, no LLM
    - annotator: the LLM's vote shares; exact probabilities, where the engine reads them, only break their ties
    - teacher: the model that the students learnt from

    Returns:
        probabilities (n, labels), the label of each row, the names of the labels, and further columns.
    """
    texts, kind, names = rows["text"].tolist(), work.step.kind, labels.names
    if kind == "teacher":
        result = predict(str(work.parents["teacher"]), texts, work.config.trainer, tokens_cache=work.tokens)
        return result.probabilities, result.predicted, result.labels, {}
    if kind == "annotator":
        folder = work.parents[f"annotations/{number}"]
        votes, shares = reading.read_votes(folder, names)
        if f"p_{names[0]}" in votes:
            shares = (shares + 1e-3 * reading.read_votes(folder, names, "p")[1]) / 1.001
        columns = {name: votes[name].to_numpy() for name in ("agreement", "n_samples")}
        return shares, reading.optional_labels(votes["label"]), names, columns
    if kind == "majority":
        frequency = pool["label"].value_counts(normalize=True).reindex(list(names), fill_value=0.0)
        shares = np.tile(frequency.to_numpy(), (len(rows), 1))
    else:
        indexes, similarities = nearest(embed_once(texts), embed_once(pool["text"].tolist()), work.step.k)
        shares = neighbour_vote(similarities, indexes, pool["label"].tolist(), labels)
    return shares, [names[column] for column in shares.argmax(axis=1)], names, {}
