"""A model's folder records which texts it and its parent models were trained on, whatever their spelling."""

import logging
from pathlib import Path

import pytest

from findistill.data import training_texts


def test_texts_are_known_by_their_key_and_inherited(tmp_path: Path) -> None:
    first, second, exported = (tmp_path / name for name in ("first", "run/model", "onnx"))
    for folder in (first, second, exported):
        folder.mkdir(parents=True)
    training_texts.write(first, ["Profit rose 5%", "利润上升"])
    training_texts.write(second, ["Shares fell"], ["", "hub/model", first])
    training_texts.write(exported, [], [second])
    (exported / "model.onnx").touch()
    texts = ["PROFIT rose: 5 %!", "Profit rose -5%", "利润上升", "Shares fell", "\ud83d"]
    assert training_texts.known(first, texts).tolist() == [True, False, True, False, False]
    for model in (second, second.parent, exported, exported / "model.onnx"):
        assert training_texts.known(model, texts).tolist() == [True, False, True, True, False]


def test_nothing_is_known_of_other_peoples_models(tmp_path: Path) -> None:
    training_texts.write(tmp_path, [], ["hub/model"])
    assert not list(tmp_path.iterdir())
    for model in (tmp_path, "hub/model"):
        assert not training_texts.known(model, ["Profit rose"]).any()


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-3], lambda data: b"x" * len(data)])
def test_a_damaged_file_is_said_and_knows_nothing(damage, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training_texts.write(tmp_path, ["Profit rose"])
    path = tmp_path / training_texts.FILE
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert not training_texts.known(tmp_path, ["Profit rose"]).any()
    assert "training_texts.npy cannot be read" in caplog.text
