"""Label sets other than sentiment, end to end: annotate, student, report, export; and an LLM that is prompted or tuned."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from findistill.core import job as jobs
from findistill.core import run_folder
from findistill.inference import onnx_model
from findistill.methods.report.stage import make
from findistill.methods.stage import stage_of
from findistill.models.weights import locate
from findistill.report.config import Report
from tests.fixtures.composing import composed

TOPICS = (
    "earnings", "earnings call", "rates", "rate cut", "rate hike", "mergers & acquisitions", "IPO", "dividends", "buybacks",
    "management", "layoffs", "litigation", "regulation", "credit rating", "commodities", "crypto", "currencies", "tax/tariffs",
    "guidance: raised", "guidance: cut",
)  # fmt: skip


@dataclass(frozen=True)
class Set:
    """Labels in the order used by models, and a text template."""

    labels: tuple[str, ...]
    text: str
    each: int  # texts per label


SETS = {
    "topics": Set(tuple(sorted(TOPICS)), "Notice {number}: the desk writes about {label} again", 6),
    "grades": Set(("1", "2", "3", "4", "5"), "Report {number} on the bonds, {label} of five stars for the issuer", 14),
    "Chinese": Set(("中性", "利好", "利空"), "第{number}号公告：分析师认为这条消息属于{label}", 20),
}


@pytest.fixture(params=SETS)
def label_set(request: pytest.FixtureRequest) -> Set:
    return SETS[request.param]


def write(folder: Path, own: Set) -> list[str]:
    """Write a file with every fourth text unlabelled, and recorded answers; return the overrides that read them."""
    rows = [(own.text.format(number=number, label=label), label) for number in range(own.each) for label in own.labels]
    hidden = [at // len(own.labels) % 4 == 3 for at in range(len(rows))]
    lines = [(text, "" if unlabelled else label) for (text, label), unlabelled in zip(rows, hidden, strict=True)]
    with (folder / "texts.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "class"), *lines])
    with (folder / "answers.jsonl").open("w", encoding="utf-8") as file:
        for at, (text, label) in enumerate(rows):
            answer = (label, json.dumps({"sentiment": label}, ensure_ascii=False), f"**{label}**")[at % 3]
            file.write(json.dumps({"text": text, "answer": answer, "label": label}, ensure_ascii=False) + "\n")
    data = ["data=csv", f"data.path={folder / 'texts.csv'}", "data.label_column=class", "shots.k=0"]
    return [*data, f"runs_dir={folder / 'runs'}", "logger=none", "trainer=cpu", "study=s"]


def run_job(*overrides: str) -> Path:
    """Run a job to completion, as a command does; return its folder."""
    config = composed(*overrides)
    stage = stage_of(config)
    folder = run_folder.folder_of(config, stage, list(overrides))
    jobs.run(config, stage, folder)
    return folder


def test_annotate_student_report_export(label_set: Set, tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write(tmp_path, label_set)
    options = [*data, "llm=recorded", f"llm.path={tmp_path / 'answers.jsonl'}", "annotate.samples=1", "distill.min_agreement=1"]
    options += ["llm.label_column=label"] if label_set.labels == SETS["topics"].labels else []
    small = ["evaluate.resamples=20", "evaluate.latency=false", "student=folder", f"student.model={tiny}", "student.name=tiny",
             "student.layers=[1]"]  # fmt: skip

    votes = pd.read_parquet(run_job("stage=annotate", *options) / "predictions.parquet")
    assert tuple(name.removeprefix("p_") for name in votes if name.startswith("p_")) == label_set.labels
    assert (votes["predicted"] == votes["label"]).all()

    student = run_job("stage=student", "distill=cls", "trainer.max_epochs=1", *options, *small)
    predictions = pd.read_parquet(student / "predictions.parquet")
    assert set(predictions["label"]) == set(label_set.labels)
    assert {path.name for path in (student / "figures").glob("*.png")} == {
        "confusion_matrix.png", "learning_curve.png", "precision_recall.png",
    }  # fmt: skip
    assert json.loads((student / "model" / "config.json").read_text("utf-8"))["id2label"] == {
        str(number): label for number, label in enumerate(label_set.labels)
    }

    make(tmp_path / "runs", "s", Report(resamples=20))
    table = pd.read_csv(tmp_path / "runs" / "s" / "table.csv")
    assert {"student", "annotator", "baseline"} == set(table["kind"])
    assert {f"{label}_f1" for label in label_set.labels} <= set(table) | {name.removeprefix("'") for name in table}
    assert (tmp_path / "runs" / "s" / "report.html").read_text("utf-8").count("<figure>") >= 3

    exported = run_job("stage=export", f"evaluate.model={student}", *data, *small[:2], "export.quantize=[none]")
    assert onnx_model.open_onnx(exported / "onnx" / "model.onnx").labels == label_set.labels
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert not [line for line in warnings if "left out" in line or "skipping the figure" in line]


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random language model with SmolLM2's tokenizer."""
    folder = tmp_path_factory.mktemp("language_model")
    tokenizer = AutoTokenizer.from_pretrained(locate("embedded:smollm2"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "overrides"),
    [("topics", ["stage=fewshot", "shots.k=3"]), ("Chinese", ["stage=qlora", "qlora.quantization=none", "qlora.epochs=1"])],
)
def test_a_language_model_is_asked_or_tuned(name: str, overrides: list[str], language_model: Path, tmp_path: Path) -> None:
    lm = [f"llm.model={language_model}", "evaluate.resamples=20", "evaluate.latency=false"]
    predictions = pd.read_parquet(run_job(*write(tmp_path, SETS[name]), *lm, *overrides) / "predictions.parquet")
    assert set(predictions["predicted"].dropna()) <= set(SETS[name].labels) == set(predictions["label"])
