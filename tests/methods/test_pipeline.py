"""The complete pipeline through the application: real weights, the demo corpus, two students, a report."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn import metrics as sk

from tests.conftest import COMMAND, SECRET
from tests.fixtures.machine import slowness
from tests.fixtures.preloaded import Preloaded
from tests.methods.cards import scores, valid_dataset_card, valid_model_card


def jobs(study: Path) -> list[Path]:
    return sorted(path.parent for path in study.glob("moon/*/status.json") if not path.parent.is_symlink())


def test_run_folders_hold_what_the_contract_names(study: Path) -> None:
    assert len(jobs(study)) == 2
    for job in jobs(study):
        status = json.loads((job / "status.json").read_text())
        assert status["state"] == "done" and status["error"] is None and status["device"]
        assert yaml.safe_load((job / "config.yaml").read_text())["study"] == "moon"
        for name in ("learning_curve", "confusion_matrix", "precision_recall"):
            assert (job / "figures" / f"{name}.png").stat().st_size > 5000
        assert (job / "model" / "model.safetensors").exists()
        assert "agreeing votes" in (job / "model" / "README.md").read_text()
        assert not list(job.rglob("*.ckpt")) and not list(job.rglob("*.bin")) and not list(job.rglob("*.pkl"))
        metrics = json.loads((job / "metrics.json").read_text())
        expected = {
            "data/kept",
            "data/kept_share",
            "time/train_s",
            "time/cpu_s",
            "memory/peak_mb",
            "model/parameters",
            "model/mb",
        }
        assert expected <= set(metrics)
        assert 100 < metrics["memory/peak_mb"] < 6000


def test_cards_have_the_numbers_of_the_metrics_and_the_licence_of_all_that_was_learnt_from(study: Path) -> None:
    for job in jobs(study):
        metrics, card = json.loads((job / "metrics.json").read_text()), valid_model_card(job / "model")
        names = {"Accuracy": "accuracy", "Macro F1": "macro_f1", "Weighted F1": "weighted_f1"}
        assert scores(card) == {title: metrics[f"test/{name}"] for title, name in names.items()}
        assert f"{metrics['test/accuracy_lo']:.3f} to {metrics['test/accuracy_hi']:.3f}" in card.text
        assert (card.data.license, card.data.base_model) == ("apache-2.0", "sentence-transformers/all-MiniLM-L6-v2")
        for row in (
            "| texts | demo | the project's own |",
            "| annotator | HuggingFaceTB/SmolLM2-135M-Instruct | apache-2.0 |",
            "| weights | sentence-transformers/all-MiniLM-L6-v2 | apache-2.0 |",
        ):
            assert row in card.text
    for folder in study.glob(".artifacts/annotate-*[!k]"):
        assert (card := valid_dataset_card(folder)).data.license == "apache-2.0" and "The texts are included" in card.text


def test_scikit_learn_finds_the_same_numbers_in_the_predictions(study: Path) -> None:
    for job in jobs(study):
        metrics = json.loads((job / "metrics.json").read_text())
        for prefix, name in (("test", "predictions"), ("demo", "predictions_demo")):
            frame = pd.read_parquet(job / f"{name}.parquet")
            labels = [column.removeprefix("p_") for column in frame.columns if column.startswith("p_")]
            gold, predicted = frame["label"], frame["predicted"]
            assert metrics[f"{prefix}/n"] == len(frame)
            assert metrics[f"{prefix}/accuracy"] == pytest.approx(sk.accuracy_score(gold, predicted))
            for kind in ("macro", "weighted"):
                score = sk.f1_score(gold, predicted, average=kind, zero_division=0)
                assert metrics[f"{prefix}/{kind}_f1"] == pytest.approx(score)
            each = sk.precision_recall_fscore_support(gold, predicted, labels=labels, zero_division=0)
            for column, label in enumerate(labels):
                for key, values in zip(("precision", "recall", "f1", "support"), each, strict=True):
                    assert metrics[f"{prefix}/{label}/{key}"] == pytest.approx(values[column])
                precision = sk.average_precision_score(gold == label, frame[f"p_{label}"])
                assert metrics[f"{prefix}/{label}/average_precision"] == pytest.approx(precision)


def test_plain_transformers_predicts_the_same(study: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    job = jobs(study)[0]
    frame = pd.read_parquet(job / "predictions.parquet")
    model = AutoModelForSequenceClassification.from_pretrained(job / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(job / "model")
    with torch.inference_mode():
        inputs = tokenizer(frame["text"].tolist(), padding=True, truncation=True, return_tensors="pt")
        shares = model(**inputs).logits.softmax(-1).double().numpy()
    names = [model.config.id2label[column] for column in range(3)]
    assert [names[column] for column in shares.argmax(1)] == frame["predicted"].tolist()
    np.testing.assert_allclose(shares, frame[[f"p_{name}" for name in names]].to_numpy(), atol=1e-4)


def test_annotations_are_made_once_for_both_students(study: Path) -> None:
    keys = [json.loads((job / "artifacts.json").read_text())["annotate"] for job in jobs(study)]
    assert keys[0] == keys[1]
    votes = pd.read_parquet(study / ".artifacts" / keys[0] / "annotations.parquet")
    assert len(votes) == 20 and votes["agreement"].between(0, 8).all() and (votes["n_samples"] == 8).all()
    seconds = [json.loads((job / "metrics.json").read_text())["time/artifacts_made_s"] for job in jobs(study)]
    assert sorted(value > 1 for value in seconds) == [False, True]


def test_the_report_shows_students_baselines_and_no_text(study: Path) -> None:
    table = pd.read_csv(study / "moon" / "table.csv")
    assert {"CLS ≥5", "REG ≥5", "majority class", "annotator (smollm2, 8 samples)", "minilm_3l on human labels"} <= set(
        table["method"]
    )
    page = (study / "moon" / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["']https?://[^"']+\.(?:js|css|png|svg)""", page)
    texts = pd.read_parquet(jobs(study)[0] / "predictions.parquet")["text"]
    assert not any(text in page for text in texts)


def test_offline_wandb_holds_two_runs_in_one_group(study: Path) -> None:
    records = [run_record(path) for path in sorted(study.glob("moon/student-*/wandb/offline-run-*/*.wandb"))]
    records = [record for record in records if record.job_type == "student"]  # the others belong to intermediate artifacts
    assert len(records) == 2
    assert len({record.run_id for record in records}) == 2
    assert {record.run_group for record in records} == {"moon"}
    keys = {update.key for update in records[0].config.update}
    assert {"distill", "student", "data", "seed"} <= keys


def run_record(path: Path) -> object:
    """The run record of an offline W&B file: LevelDB's log format behind a seven-byte header."""
    from wandb.proto import wandb_internal_pb2 as pb

    raw, at, whole = path.read_bytes(), 7, b""
    while at < len(raw):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(raw[at + 4 : at + 6], "little"), raw[at + 6]
        whole += raw[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a full record, or the last part of one
            record = pb.Record()
            record.ParseFromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "run":
                return record.run
    raise AssertionError(f"no run in {path}")


def test_no_key_is_written_or_printed(study: Path) -> None:
    files = [path for path in study.parent.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_the_same_command_again_does_nothing(study: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*.json")}
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-m", "findistill", *COMMAND], cwd=study.parent, capture_output=True, text=True, timeout=100
    )
    seconds = time.perf_counter() - started
    assert result.returncode == 0
    assert "2 already done, 0 to run" in result.stderr and "nothing to do" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*.json")} == before
    assert seconds < 10 * slowness()


def test_a_run_folder_stands_for_its_model(preloaded: Preloaded, study: Path) -> None:
    command = [
        "findistill", "stage=evaluate", f"evaluate.model={jobs(study)[0]}", "data.labelled=52", "data.test=0.02",
        "evaluate.resamples=50", "logger=none", "evaluate.latency=false",
    ]  # fmt: skip
    result = preloaded.run(command, study.parent, os.environ, 200)
    assert result.returncode == 0, result.stderr[-2000:]
    [again] = study.glob("default/evaluate-*/metrics.json")
    first = json.loads((jobs(study)[0] / "metrics.json").read_text())
    assert json.loads(again.read_text())["test/accuracy"] == first["test/accuracy"]
