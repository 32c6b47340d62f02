"""The teacher whose errors new texts start from: a named model, or out-of-fold models of the labelled rows."""

from dataclasses import dataclass

import pandas as pd

from findistill.core.store import Work
from findistill.inference.predict import predict
from findistill.methods import rows as reading
from findistill.methods.cross_fit.folds import FILE, model
from findistill.models.weights import locate


@dataclass(frozen=True)
class Teacher:
    """Predictions for the labelled rows (id, fold, predicted), and the models that made them.

    Model `i` was not trained on the rows of fold `i`. A named teacher is a single model, and every row has fold 0.
    """

    predictions: pd.DataFrame
    models: list[str]


def source_rows(work: Work) -> pd.DataFrame:
    """The labelled rows that new texts are created from, none of them in a test set."""
    data = reading.dataset(work)
    rows, _ = reading.supervision(work, data, reading.test_sets(work))
    reading.check_classes(rows, data, "augmentation")
    return rows


def teacher_of(work: Work, rows: pd.DataFrame) -> Teacher:
    """The named model's predictions for `rows`, or the out-of-fold ones."""
    settings, folder = work.config.augment, work.parents["teacher"]
    if settings.teacher:
        path = locate(settings.teacher)
        prediction = predict(path, rows["text"].tolist(), work.config.trainer, tokens_cache=work.tokens)
        return Teacher(rows[["id"]].assign(fold=0, predicted=prediction.predicted), [path])
    models = [str(model(folder, fold)) for fold in range(settings.folds)]
    return Teacher(pd.read_parquet(folder / FILE), models)
