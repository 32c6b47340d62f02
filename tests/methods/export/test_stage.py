"""`stage=export` on the demo corpus, the files it writes, and `stage=evaluate` on them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose
from omegaconf import DictConfig

from findistill.config.validate import validate
from findistill.core import job as jobs
from findistill.core import run_folder
from findistill.data import training_texts
from findistill.data.text_key import text_key
from findistill.errors import UserError
from findistill.methods import rows as reading
from findistill.methods.stage import stage_of
from findistill.models.config import Encoder
from findistill.models.encoders import load as load_encoder
from findistill.models.encoders import save
from tests.faults.conftest import tiny  # noqa: F401
from tests.fixtures.composing import shipped
from tests.methods.cards import scores, valid_model_card

NAMES = ("positive", "negative", "neutral")  # a different order from the data's
VARIANTS = ("fp32", "int8_dynamic", "int8_static")


def composed(folder: Path, *overrides: str) -> DictConfig:
    words = ("data=demo", "evaluate.resamples=20", "logger=none", f"runs_dir={folder}")
    with shipped():
        return compose("config", overrides=[*words, *overrides])


def run(folder: Path, *overrides: str) -> Path:
    """Run a job in this process; return its run folder."""
    config = composed(folder, *overrides)
    validate(config)
    stage = stage_of(config)
    place = run_folder.folder_of(config, stage, ())
    with jobs.running(config, stage, place) as job:
        stage.run(job)
    return place


def metrics(job: Path) -> dict[str, float]:
    return json.loads((job / "metrics.json").read_text())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:  # noqa: F811
    """A model folder with an untrained head, which is enough to compare predictions."""
    encoder, tokenizer = load_encoder(Encoder(name="tiny", model=str(tiny)), NAMES, scalar=False, seed=0)
    folder = tmp_path_factory.mktemp("run") / "model"
    save(folder, encoder, tokenizer, NAMES, 16)
    training_texts.write(folder, ["Profit rose"])
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def exported(runs: Path, model: Path) -> Path:
    """The run folder of an export that was timed against the source model."""
    return run(
        runs, "stage=export", f"evaluate.model={model}", "export.calibration_rows=20", "export.threads=[1]",
        f"export.against={model}",
    )  # fmt: skip


def test_it_leaves_three_checked_files(exported: Path, model: Path) -> None:
    folder = exported / "onnx"
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx", "model_int8_dynamic.onnx", "model_int8_static.onnx", "tokenizer.json", "labels.json", "run.py", "README.md",
        training_texts.FILE,
    }  # fmt: skip
    assert json.loads((folder / "labels.json").read_text()) == list(NAMES)
    values = metrics(exported)
    assert values["export/fp32/label_agreement"] == 1 and values["export/fp32/max_logit_difference"] < 1e-4
    assert values["export/fp32/accuracy"] == values["export/torch/accuracy"]
    for variant in VARIANTS:
        key = f"export/{variant}"
        file = folder / ("model.onnx" if variant == "fp32" else f"model_{variant}.onnx")
        assert values[f"{key}/mb"] == file.stat().st_size / 1e6
        assert values[f"{key}/label_agreement"] > 0.8 and values[f"{key}/accuracy_lo"] <= values[f"{key}/accuracy"]
        assert 0 < values[f"{key}/threads_1/p50_ms"] <= values[f"{key}/threads_1/p95_ms"]
        assert values[f"{key}/threads_1/texts_per_s"] > 0
        ratio = values["export/against/threads_1/p50_ms"] / values[f"{key}/threads_1/p50_ms"]
        assert values[f"{key}/threads_1/times_faster_than_against"] == pytest.approx(ratio)
    assert values["export/torch/mb"] == (model / "model.safetensors").stat().st_size / 1e6
    assert values["export/int8_dynamic/times_smaller_than_torch"] > 3
    card = (folder / "README.md").read_text()
    own = {"Accuracy": "accuracy", "Macro F1": "macro_f1"}  # of the first ONNX file
    assert scores(valid_model_card(folder)) == {title: values[f"export/fp32/{name}"] for title, name in own.items()}
    assert "| int8_static | " in card and "at most 20 training texts of demo" in card and "python run.py model.onnx" in card


def test_the_script_needs_onnxruntime_and_tokenizers_only(exported: Path, runs: Path, tmp_path: Path) -> None:
    folder = exported / "onnx"
    assert len((folder / "run.py").read_text().splitlines()) <= 15
    for name in ("torch", "transformers", "findistill", "onnx"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was loaded')")
    evaluated = run(runs, "stage=evaluate", f"evaluate.model={exported}", "evaluate.latency=false")
    frame = pd.read_parquet(evaluated / "predictions.parquet").head(5)
    result = subprocess.run(
        [sys.executable, str(folder / "run.py"), "model.onnx", *frame["text"]],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = [line.split("\t", 2) for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == frame["predicted"].tolist() and [line[2] for line in lines] == frame["text"].tolist()
    assert [float(line[1]) for line in lines] == pytest.approx(frame.filter(like="p_").max(axis=1).tolist(), abs=1e-3)


def test_evaluate_scores_a_file_as_the_model_it_came_from(runs: Path, exported: Path, model: Path) -> None:
    of_torch, of_file, of_small = (
        run(runs, "stage=evaluate", f"evaluate.model={which}", "evaluate.latency=false")
        for which in (model, exported / "onnx" / "model.onnx", exported / "onnx" / "model_int8_dynamic.onnx")
    )
    expected, actual = (pd.read_parquet(job / "predictions.parquet") for job in (of_torch, of_file))
    pd.testing.assert_frame_equal(actual, expected, atol=1e-5)
    first, second = metrics(of_torch), metrics(of_file)
    tested = [key for key in first if key.startswith("test/")]
    assert len(tested) > 20 and [second[key] for key in tested] == pytest.approx([first[key] for key in tested], abs=1e-4)
    assert metrics(of_small)["test/accuracy"] == metrics(exported)["export/int8_dynamic/accuracy"]


def test_ranges_come_from_training_texts_only(tmp_path: Path, model: Path) -> None:
    from findistill.methods.export import stage as export

    config = composed(tmp_path, "stage=export", f"evaluate.model={model}", "export.calibration_rows=1000")
    with jobs.running(config, stage_of(config), tmp_path / "job") as job:  # type: ignore[arg-type]
        data, tests = reading.dataset(job), reading.test_sets(job)
        texts = export.calibration_texts(job, data, tests)
        tested = {text_key(text) for text in tests["test"][0]["text"]}
        assert len(texts) > 50 and not tested & {text_key(text) for text in texts}
        assert set(texts) <= set(data.split("train", "pool")["text"])
        job.config.export.calibration_rows = 7
        assert export.calibration_texts(job, data, tests) == texts[:7]


def test_only_what_is_asked_for_is_left(tmp_path: Path, model: Path) -> None:
    job = run(tmp_path, "stage=export", f"evaluate.model={model}", "export.quantize=[dynamic]", "evaluate.latency=false")
    assert [path.name for path in (job / "onnx").glob("*.onnx")] == ["model_int8_dynamic.onnx"]
    assert not [key for key in metrics(job) if "threads" in key]
    assert "p50" not in (job / "onnx" / "README.md").read_text().split("| --- ")[0].split("|", 1)[1]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("export.quantize=[int4]", r"export.quantize=\[int4\]: choose one or more of none, dynamic, static, each once"),
        ("export.quantize=[]", r"export.quantize=\[\]"),
        ("export.threads=[0]", r"export.threads=\[0\]"),
        ("export.opset=11", "export.opset=11 is not an ONNX opset .* at least 18, at most 25"),
        ("export.calibration_rows=0", "export.calibration_rows=0 must be at least"),
        ("evaluate.model=null", "stage=export needs evaluate.model"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(composed(tmp_path, "stage=export", "evaluate.model=some/folder", override))


def test_mistakes_in_what_is_exported_or_scored(tmp_path: Path, exported: Path) -> None:
    with pytest.raises(UserError, match=r"has ONNX weights|stage=export needs torch weights"):
        run(tmp_path, "stage=export", f"evaluate.model={exported}")
    with pytest.raises(UserError, match=r"nowhere\.onnx: no such file"):
        run(tmp_path, "stage=evaluate", f"evaluate.model={tmp_path}/nowhere.onnx")
    (tmp_path / "labels.json").write_text("[]")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "text.onnx").write_text("no ONNX")
    with pytest.raises(UserError, match=r"text\.onnx cannot be read as ONNX"):
        run(tmp_path, "stage=evaluate", f"evaluate.model={tmp_path}/text.onnx")
