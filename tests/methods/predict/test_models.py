"""Everything that labels texts: torch folders, ONNX files in float32 and 8 bits, linear and entity models, and engines."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import AutoModelForTokenClassification

from findistill.data.spans import tags_of
from findistill.errors import UserError
from findistill.inference import tagging
from findistill.inference.onnx_export import file_name
from findistill.methods.predict import windows as cutting
from findistill.models.config import Encoder
from findistill.models.encoders import save, with_head
from findistill.models.linear import fit_linear
from tests.faults.conftest import tiny  # noqa: F401
from tests.methods.predict.conftest import Predict, metrics

CSV = ("data=csv", "data.path=news.csv")
TEXTS = [
    f"{subject} {verb} by {n}" for n in range(15) for subject in ("Profit", "Shares of the bank") for verb in ("rose", "fell")
]


@pytest.fixture(autouse=True)
def news(tmp_path: Path) -> None:
    (tmp_path / "news.csv").write_text("\n".join(["text", *TEXTS]) + "\n")


def answers(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions")


def test_onnx_files_are_made_once_and_give_what_torch_gives(
    predict: Predict, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    of_torch, small, plain = (answers(predict(*CSV, f"predict.weights={each}")) for each in ("torch", "auto", "fp32"))
    pd.testing.assert_frame_equal(plain, of_torch, atol=1e-5)
    shares = [frame.filter(like="p_").to_numpy() for frame in (of_torch, small)]
    assert 0 < np.abs(shares[0] - shares[1]).max() < 0.1
    [folder] = (tmp_path / "runs" / ".artifacts").glob("onnx-*[!k]")
    agreement = (plain["label"] == small["label"]).mean()
    with pytest.raises(UserError, match="holds several ONNX files"):
        (folder / "model.onnx").rename(folder / "other.onnx")
        predict(*CSV, f"predict.model={folder}", "predict.weights=fp32")
    (folder / "other.onnx").rename(folder / "model.onnx")
    as_file = predict(*CSV, f"predict.model={folder / file_name('int8_dynamic')}", "predict.weights=fp32")  # a file is used as is
    pd.testing.assert_frame_equal(answers(as_file), small)
    beside = predict(*CSV, f"predict.model={folder}", "predict.weights=int8")  # an export folder and its 8-bit file
    pd.testing.assert_frame_equal(answers(beside), small)
    assert metrics(beside)["predict/int8_agreement"] == agreement
    with pytest.raises(UserError, match=r"predict\.weights=torch: .* is an ONNX file"):
        predict(*CSV, f"predict.model={folder}", "predict.weights=torch")
    (folder / file_name("int8_dynamic")).unlink()
    pd.testing.assert_frame_equal(answers(predict(*CSV, f"predict.model={folder}", "predict.weights=auto", "seed=1")), plain)


def test_a_linear_classifier(predict: Predict, tmp_path: Path) -> None:
    labels = ["up" if "rose" in text else "down" for text in TEXTS]
    fit_linear("tfidf", TEXTS, labels).save(tmp_path / "linear")
    frame = answers(predict(*CSV, "predict.model=linear", "predict.weights=auto"))
    assert [*frame] == ["text", "label", "confidence", "p_down", "p_up"] and frame["label"].tolist() == labels
    with pytest.raises(UserError, match=r"predict\.weights=int8: logistic regression is not exported"):
        predict(*CSV, "predict.model=linear", "predict.weights=int8")


def test_entities(predict: Predict, tmp_path: Path, tiny: Path) -> None:  # noqa: F811
    tags = tags_of(["company", "person"])
    model, tokenizer = with_head(Encoder(name="tiny", model=str(tiny)), AutoModelForTokenClassification, tags, 0)
    save(tmp_path / "tagger", model, tokenizer, tags, 16)
    (tmp_path / "news.csv").write_text("\n".join(["n,text", *(f"{n},{text}" for n, text in enumerate([*TEXTS, ""]))]) + "\n")
    expected = tagging.open_model(tmp_path / "tagger", "cpu").spans(TEXTS)
    folder = predict(*CSV, "predict.model=tagger")
    frame = answers(folder)
    assert [*frame] == ["n", "text", "entities"] and sum(map(len, expected)) > 20 and frame["entities"].iloc[-1] is None
    for text, cell, spans in zip(TEXTS, frame["entities"], expected, strict=False):
        assert [(each["start"], each["end"], each["label"]) for each in cell] == [(s.start, s.end, s.label) for s in spans]
        assert [each["text"] for each in cell] == [text[s.start : s.end] for s in spans]
    values = metrics(folder)
    assert values["predict/entities_per_text"] == pytest.approx(sum(map(len, expected)) / len(TEXTS))
    assert values["predict/with_entities"] == pytest.approx(sum(map(bool, expected)) / len(TEXTS))
    table = pd.read_csv(predict(*CSV, "predict.model=tagger", "predict.format=csv") / "predictions" / "part-00000.csv")
    assert [len(json.loads(cell)) for cell in table["entities"].dropna()] == list(map(len, expected))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors is truncated or damaged"),
        (lambda folder: [path.unlink() for path in folder.glob("tokenizer*")], "has no tokenizer"),
        (lambda folder: (folder / "config.json").write_text('{"architectures": ["BertForMaskedLM"]}'), "fills in masked words"),
    ],
)
@pytest.mark.parametrize("weights", ["torch", "auto"])
def test_models_that_cannot_be_used(
    change: object, words: str, weights: str, predict: Predict, model: Path, tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path / "broken")
    change(tmp_path / "broken")  # type: ignore[operator]
    with pytest.raises(UserError, match=words):
        predict(*CSV, "predict.model=./broken", f"predict.weights={weights}")


@pytest.mark.slow
def test_workers_give_the_rows_of_one_process(predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "ROWS", 16)
    alone = answers(predict(*CSV, "predict.batch_size=8"))
    several = predict(*CSV, "predict.batch_size=8", "predict.workers=2", "study=several")
    pd.testing.assert_frame_equal(answers(several), alone, check_exact=True)


@pytest.mark.slow
def test_ray_gives_the_rows_of_the_local_engine(predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="needs findistill[ray]")
    monkeypatch.setattr(cutting, "ROWS", 8)
    local = answers(predict(*CSV, "predict.weights=auto"))
    try:
        ray.init(address="local", num_cpus=2, log_to_driver=False, include_dashboard=False)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        distributed = predict(*CSV, "predict.weights=auto", "predict.engine=ray", "predict.ray.max_actors=2", "study=ray")
        pd.testing.assert_frame_equal(answers(distributed), local, check_exact=True)
    finally:
        monkeypatch.undo()
        ray.shutdown()


def test_a_cluster_that_is_not_there(predict: Predict) -> None:
    pytest.importorskip("ray", reason="needs findistill[ray]")
    with pytest.raises(UserError, match=r"predict.ray.address=127.0.0.1:9: no Ray cluster can be reached"):
        predict(*CSV, "predict.engine=ray", "predict.ray.address='127.0.0.1:9'")


def test_ray_is_asked_for_by_name(predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "findistill.methods.predict.ray_engine", raising=False)
    with pytest.raises(UserError, match=r"needs the package ray.\nInstall it with: pip install 'findistill\[ray\]'"):
        predict(*CSV, "predict.engine=ray")
