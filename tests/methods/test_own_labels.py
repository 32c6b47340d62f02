"""A file with custom labels that `data.labels` does not list, and unlabelled rows: trained on, distilled on, predicted."""

import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from findistill.config.validate import validate
from findistill.core.job import Job
from findistill.data.demo import read_corpus
from findistill.errors import UserError
from findistill.inference.predict import predict
from findistill.methods import rows as reading
from findistill.methods.stage import stage_of
from tests.fixtures.composing import composed
from tests.fixtures.jobs import run_job

RATINGS = {"negative": "sell", "neutral": "hold", "positive": "buy"}


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 rows, every fourth unlabelled."""
    rows = [
        {"text": row["text"], "rating": "" if number % 4 == 3 else RATINGS[row["label"]]}
        for number, row in enumerate(read_corpus(120))
    ]
    path = tmp_path_factory.mktemp("files") / "ratings.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def configured(path: Path, *overrides: str) -> Any:
    config = composed("data=csv", f"data.path={path}", "data.label_column=rating", "shots.k=0", "trainer=cpu", *overrides)
    validate(config)
    return config


@pytest.fixture(scope="module")
def teacher(ratings: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    small = ["teacher=folder", f"teacher.model={tiny}", "trainer.max_epochs=1", "evaluate.latency=false", "evaluate.resamples=20"]
    return run_job(configured(ratings, "stage=teacher", *small), tmp_path_factory.mktemp("teacher"))


def test_the_files_own_labels_are_the_models(teacher: Job) -> None:
    predictions = pd.read_parquet(teacher.folder / "predictions.parquet")
    assert [name for name in predictions if name.startswith("p_")] == ["p_buy", "p_hold", "p_sell"]
    assert set(predictions["label"]) == set(RATINGS.values()) and teacher.metrics["data/kept"] < 90


def test_rows_without_a_label_are_distilled_on_and_predicted(teacher: Job) -> None:
    data = reading.dataset(teacher)
    assert data.card.counts["train"]["unlabelled"] == 30
    assert len(reading.labelled_rows(data)) == teacher.metrics["data/kept"]
    empty = data.frame[data.frame["label"].isna()]
    known, held_out = reading.supervision(teacher, data, reading.test_sets(teacher))
    more = reading.transfer_texts(data, known, held_out, reading.test_sets(teacher), data.frame.head(0), None)
    assert set(more["id"]) == set(empty["id"]) <= set(reading.rows_to_annotate(data, None, 0)["id"])
    prediction = predict(teacher.folder / "model", empty["text"].tolist(), teacher.config.trainer)
    assert prediction.labels == ("buy", "hold", "sell") and len(prediction.predicted) == 30


def test_what_needs_labels_before_they_are_read_waits_for_them(ratings: Path) -> None:
    named = ["data.labels=[sell,hold,buy]"]
    balanced = ["stage=annotate", "shots.k=4", "shots.selection=balanced"]
    scalar = ["stage=student", "distill=reg", "distill.target=scalar", "distill.min_agreement=1"]
    for overrides, message in (
        (balanced, "shots.k=4 cannot be balanced over 3 labels"),
        (scalar, "data.labels has no 'positive'"),
    ):
        assert stage_of(configured(ratings, *overrides)).key
        with pytest.raises(UserError, match=message):
            configured(ratings, *overrides, *named)
    configured(ratings, *balanced, *named, "shots.k=3", "prompt.wording=names")


def test_a_test_set_of_other_labels_is_refused_before_training(ratings: Path, tmp_path: Path) -> None:
    also = f"evaluate.also=['csv path={ratings} label_column=rating']"
    config = composed("data=demo", "trainer=cpu", "stage=teacher", also)
    with pytest.raises(UserError, match=r"the test set csv has the labels buy.*\n.*'evaluate.label_map=\{negative: "):
        run_job(config, tmp_path)


PAID = {
    "fewshot": ["stage=fewshot", "llm=endpoint", "llm.model=m", "llm.api_key_env=null", "llm.base_url=http://127.0.0.1:9/v1"],
    "qlora": ["stage=qlora", "llm.model=no/such"],
    "student": ["stage=student", "distill=cls", "llm=endpoint", "llm.model=m", "llm.api_key_env=null",
                "llm.base_url=http://127.0.0.1:9/v1"],
    "teacher of a student": ["stage=student", "distill=logit", "teacher=folder", "teacher.model=no/such"],
}  # fmt: skip


@pytest.mark.parametrize("name", PAID)
def test_a_test_set_of_other_labels_is_refused_before_anything_is_paid_for(name: str, ratings: Path, tmp_path: Path) -> None:
    also = f"evaluate.also=['csv path={ratings} label_column=rating']"
    overrides = ["data=demo", "trainer=cpu", "shots.k=0", *PAID[name], also]
    with pytest.raises(UserError, match=r"the test set csv has the labels buy, hold, sell; the data's are") as error:
        run_job(composed(*overrides), tmp_path)
    [remedy] = re.findall(r"for example (\S.*), or remove", str(error.value))
    [typed] = shlex.split(remedy)
    with pytest.raises(UserError) as later_error:  # the run now gets as far as the paid step
        run_job(composed(*overrides, typed), tmp_path)
    assert "the labels" not in str(later_error.value) and len(str(error.value).splitlines()) == 2
