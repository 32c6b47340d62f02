"""Out-of-fold teachers: every row is predicted by a model that was not trained on it."""

from pathlib import Path

import pandas as pd
import pytest

from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.inference.predict import predict
from findistill.methods.cross_fit import folds
from findistill.models.config import Encoder
from findistill.training.config import Trainer
from findistill.training.trainer import Examples
from tests.fixtures.models import Corpus


def frame(examples: Examples, labels: LabelSet) -> pd.DataFrame:
    return pd.DataFrame({"id": examples.ids, "text": examples.texts, "label": [labels.names[i] for i in examples.hard]})


def test_every_row_is_predicted_by_the_model_that_is_blind_to_it(
    corpus: Corpus, labels: LabelSet, encoder: Encoder, trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, validation = frame(corpus.train, labels), frame(corpus.validation, labels)
    fits = []

    def fit(*arguments: object, **keywords: object) -> None:
        fits.append((arguments[5].folder, set(arguments[3].ids)))  # type: ignore[attr-defined]
        real(*arguments, **keywords)  # type: ignore[arg-type]

    real = folds.fit
    monkeypatch.setattr(folds, "fit", fit)
    folds.cross_fit(encoder, trainer, labels, rows, validation, 3, tmp_path, seed=0)
    predictions = pd.read_parquet(tmp_path / folds.FILE)
    assert predictions[["id", "text", "label"]].equals(rows)
    assert predictions.groupby("fold")["label"].value_counts().min() == 5  # 48 rows, three labels, three folds
    for fold, (folder, ids) in enumerate(fits):
        blind = predictions[predictions["fold"] == fold]
        assert folder == folds.model(tmp_path, fold).parent and not ids & set(blind["id"]) and len(ids) + len(blind) == 48
        prediction = predict(folds.model(tmp_path, fold), blind["text"].tolist(), trainer)
        assert prediction.predicted == blind["predicted"].tolist()
        assert blind["p_negative"].tolist() == pytest.approx(prediction.probabilities[:, prediction.labels.index("negative")])
        assert [path.name for path in folder.iterdir()] == ["model"]  # type: ignore[attr-defined]

    (tmp_path / folds.FILE).unlink()
    folds.cross_fit(encoder, trainer, labels, rows, validation, 3, tmp_path, seed=0)
    assert len(fits) == 3 and pd.read_parquet(tmp_path / folds.FILE).equals(predictions)


def test_a_label_with_too_few_rows(corpus: Corpus, labels: LabelSet, encoder: Encoder, tmp_path: Path) -> None:
    rows = frame(corpus.train, labels)
    rows = pd.concat([rows[rows["label"] != "neutral"], rows[rows["label"] == "neutral"].head(2)])
    with pytest.raises(UserError, match=r"3 folds: only 2 of the 34 labelled rows are neutral"):
        folds.cross_fit(encoder, Trainer(), labels, rows, rows.head(0), 3, tmp_path, seed=0)
