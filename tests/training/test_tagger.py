"""A token classifier learns word tags, keeps its best epoch, resumes after a kill, and loads in plain transformers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import pipeline

from findistill.data.span_counts import validation_scores
from findistill.data.spans import Marked
from findistill.inference import tagging
from findistill.inference.spans import stream
from findistill.models.config import Encoder
from findistill.training.config import Trainer
from findistill.training.loop import Session
from findistill.training.tagger import Tagger, fit_tagger
from findistill.training.trainer import Trained
from tests.fixtures.spans import NAMES, surfaces

Pair = tuple[Marked, Marked]


@pytest.fixture(scope="module")
def recipe(encoder: Encoder) -> Encoder:
    return replace(encoder, epochs=3, batch_size=8, learning_rate=1e-2)


@pytest.fixture(scope="module")
def trained(recipe: Encoder, marked: Pair, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    session = Session(Trainer(accelerator="cpu", precision="32"), tmp_path_factory.mktemp("tagger"))
    return fit_tagger(recipe, ["company"], *marked, session)


def test_it_learns_and_its_best_epoch_is_what_is_saved(trained: Trained, marked: Pair) -> None:
    best = max(trained.history, key=lambda row: row["val/macro_f1"])
    assert best["val/f1"] > 0.9 and trained.best_epoch == trained.history.index(best) + 1
    _, validation = marked
    spans = tagging.open_model(trained.model_dir, "cpu").spans(validation.texts)
    scores = validation_scores(validation.spans, spans, ["company"])
    assert scores["val/f1"] == best["val/f1"] and scores["val/accuracy"] == best["val/accuracy"]


def test_plain_transformers_opens_it(trained: Trained) -> None:
    mark = pipeline("token-classification", model=str(trained.model_dir), aggregation_strategy="first")
    text = f"Shares of {NAMES[0]} fall"
    assert [text[each["start"] : each["end"]] for each in mark(text)] == [NAMES[0]]
    assert {each["entity_group"] for each in mark(text)} == {"company"}


def test_long_texts_and_streams_are_read_to_the_end(trained: Trained) -> None:
    model = tagging.open_model(trained.model_dir, "cpu")
    texts = ["Shares of Orvane fall" + " again" * 40 + ", Quillmark reports a profit", "", "Rates stay where they are"]
    assert surfaces(texts, [*stream(model, iter(texts), at_once=2)])[1:] == [[], []]
    assert model.max_length == 16 and set(surfaces(texts, model.spans(texts))[0]) >= {"Quillmark"}


def test_onnx_files_mark_the_same(trained: Trained, marked: Pair, tmp_path: Path) -> None:
    texts = marked[1].texts
    files = tagging.export(trained.model_dir, tmp_path, 18)
    expected = tagging.open_model(trained.model_dir, "cpu").spans(texts)
    assert tagging.open_model(files["fp32"]).spans(texts) == expected
    assert files["int8_dynamic"].stat().st_size < files["fp32"].stat().st_size / 2
    agree = [one == other for one, other in zip(tagging.open_onnx(files["int8_dynamic"]).spans(texts), expected, strict=True)]
    assert sum(agree) >= 0.9 * len(texts)


def test_a_killed_training_goes_on_to_the_same_weights(
    recipe: Encoder, marked: Pair, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(Trainer(accelerator="cpu", precision="32", checkpoint_every=1), tmp_path)
    step, counter = Tagger.training_step, iter(range(15))
    monkeypatch.setattr(Tagger, "training_step", lambda *batch: 1 / (14 - next(counter)) and step(*batch))
    with pytest.raises(ZeroDivisionError):
        fit_tagger(recipe, ["company"], *marked, session)
    monkeypatch.setattr(Tagger, "training_step", step)
    again = fit_tagger(recipe, ["company"], *marked, session)
    first, second = (load_file(each.model_dir / "model.safetensors") for each in (trained, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (tmp_path / "checkpoints").exists()


def test_without_validation_texts_the_last_epoch_is_kept(recipe: Encoder, marked: Pair, tmp_path: Path) -> None:
    session = Session(Trainer(accelerator="cpu", precision="32"), tmp_path)
    trained = fit_tagger(replace(recipe, epochs=2), ["company"], marked[0], Marked([], []), session)
    assert trained.best_epoch == 2 and "val/f1" not in trained.history[-1]
