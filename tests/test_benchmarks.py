"""The benchmarks run, at a size too small to measure speed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import findistill
from findistill.models.weights import locate
from tests.conftest import Command

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(name: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, BENCHMARKS / name, *arguments],
        capture_output=True, text=True, check=False, timeout=300, env=os.environ | {"NO_PROXY": "127.0.0.1"},
    ).stdout  # fmt: skip


def test_endpoint_throughput() -> None:
    output = run("endpoint_throughput.py", "--rows", "64", "--env", "")
    assert "findistill" in output and "of the possible 640" in output


@pytest.mark.slow
def test_predict_throughput() -> None:
    assert "ratio: " in run("predict_throughput.py", "--rows", "3000", "--workers", "1")


@pytest.mark.slow
def test_sweep_overhead(tmp_path: Path) -> None:
    run("sweep_overhead.py", "--jobs", "30", "--out", str(tmp_path / "overhead.csv"))
    measured = pd.read_csv(tmp_path / "overhead.csv", index_col="key")["value"]
    assert measured["jobs"] == 30 and measured["recognition"] < measured["sweep"]
    assert measured["further_job"] < 2 and measured["growth"] < 50  # on a busy machine


@pytest.mark.thorough
def test_launchers() -> None:
    printed = run("launchers.py", "--seeds", "1", "--steps", "5", "hydra/launcher=joblib hydra.launcher.n_jobs=2")
    assert "launcher hydra/launcher=joblib hydra.launcher.n_jobs=2, jobs 8" in printed
    assert printed.count("annotations 2, same_table True") == 2  # of the unlabelled rows, and of labelled ones


@pytest.mark.slow
def test_serve_latency() -> None:
    assert "20 requests at 20/s: {200: 20}" in run("serve_latency.py", "--rate", "20", "--seconds", "1")


@pytest.mark.slow
def test_annotation_memory() -> None:
    output = run("annotation_memory.py", "--texts", "40")
    assert "20 texts: peak" in output and "40 texts: peak" in output and "growth:" in output


@pytest.mark.slow
def test_entities_at_scale(tmp_path: Path) -> None:
    printed = run("entities_at_scale.py", "--texts", "1500", "--csv", str(tmp_path / "scale.csv"))
    figures = pd.read_csv(tmp_path / "scale.csv")
    assert figures["command"].tolist() == ["label", "sample", "export", "predict"] and "MORE THAN" not in printed
    assert (figures["peak_mb"] > 50).all()


@pytest.mark.thorough
def test_training_throughput() -> None:
    assert "ratio" in run("training_throughput.py", "--steps", "2", "--repeats", "1")


@pytest.mark.thorough
def test_span_training_and_prediction() -> None:
    assert "of the library's own time" in run("span_training.py", "--steps", "2", "--repeats", "1")
    printed = run("span_prediction.py", "--texts", "16")
    assert "batch_predict_entities" in printed and "the same spans in 16 of 16 texts" in printed


@pytest.mark.thorough
def test_qlora_step(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(locate("embedded:smollm2"))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    printed = run("qlora_step.py", "--steps", "2", "--repeats", "1", "--model", str(tmp_path))
    assert "ratio to the bare loop" in printed and "peak memory, int8" in printed


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_on_scale_has_the_numbers_of_its_csv(tmp_path: Path) -> None:
    scale = load("scale")
    page = BENCHMARKS.parent / "docs" / "scale.md"
    (tmp_path / "page.md").write_text(page.read_text("utf-8"), "utf-8")
    scale.fill(tmp_path / "page.md", BENCHMARKS.parent / "experiments" / "scale.csv")
    assert (tmp_path / "page.md").read_text("utf-8") == page.read_text("utf-8")


def test_tables_of_several_sweeps_are_one_and_a_figure(tmp_path: Path) -> None:
    figure = load("label_efficiency_figure")
    committed = BENCHMARKS.parent / "experiments" / "label_efficiency"
    rows = pd.read_csv(committed / "tfns" / "table.csv")
    assert len(figure.curves(rows)) == 9
    # The methods of a sweep over a single number of labels do not name it.
    one = rows[rows["method"].str.contains("=500")].assign(
        method=lambda table: table["method"].str.replace(r",? \(data.*", "", regex=True)
    )
    (tmp_path / "sweep").mkdir()
    one.assign(accuracy=0.5).to_csv(tmp_path / "sweep" / "table.csv", index=False)
    shutil.copytree(committed, tmp_path / "study")
    with pytest.raises(SystemExit, match="--labels"):
        figure.add(tmp_path / "sweep" / "table.csv", tmp_path / "study", None)
    for labels in (100, 500):  # adding 500 replaces the existing rows
        figure.add(tmp_path / "sweep" / "table.csv", tmp_path / "study", labels)
    curves = figure.curves(pd.read_csv(tmp_path / "study" / "tfns" / "table.csv"))
    assert len(curves) == 9 and len({*one["method"]}) == 7  # distill=mixed was not run with 500 labels
    for method in one.to_dict("records"):
        fewest = [50] * (method["kind"] == "baseline")  # with 50 labels, one student and the baselines were run
        points = curves[method["method"]]
        assert [labels for labels, _ in points] == [*fewest, 100, 250, 500, 1000, 2000, 3400]
        assert [labels for labels, scores in points if scores["accuracy"].mean == 0.5] == [100, 500]


def test_names_are_new_or_in_training_texts(findistill: Command, tmp_path: Path) -> None:
    data = own_rows(tmp_path)
    (tmp_path / "list.csv").write_text("name\nOrvane\nVexel\n")
    marks = ("entities.model=company_list", "entities.company_list.path=list.csv", "study=names", "evaluate.latency=false")
    result = findistill("stage=entities", *data, *marks)
    assert result.returncode == 0, result.stderr[-2000:]
    rows = {row["names"]: (row["mentions"], row["recall"]) for row in load("new_names").recalls(tmp_path / "runs" / "names")}
    assert rows == {"in training texts": (2, 0.5), "new": (1, 1.0)}


def own_rows(folder: Path) -> tuple[str, ...]:
    """Headlines with annotated names: two test mentions have names from training texts, one of them listed; one is new."""
    parts = {"train": ("Orvane", "Nordlight", "Beltrix"), "test": ("Orvane", "nordlight", "Vexel")}
    with (folder / "news.jsonl").open("w") as file:
        for number, (part, name) in enumerate((part, name) for part, own in parts.items() for name in own):
            span = {"start": 10, "end": 10 + len(name), "label": "company"}
            row = {"text": f"Shares of {name} fall {number}%", "spans": [span], "part": part}
            file.write(json.dumps(row) + "\n")
    return (
        "data=jsonl", "data.path=news.jsonl", "data.spans_column=spans", "data.labels=[company]", "data.split_column=part",
        "data.validation=0",
    )  # fmt: skip


def test_setfit_has_the_intervals_of_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    setfit = load("setfit_label_efficiency")
    test = findistill.load_dataset("demo", labelled=100, labelled_seed=0, validation=0).test["label"]
    names = sorted(set(test))
    right = "".join(str(names.index(label)) for label in test)
    for seed, wrong in enumerate((10, 20)):
        digits = "".join(str((int(digit) + (at < wrong)) % len(names)) for at, digit in enumerate(right))
        row = {"data": "demo", "labels": 100, "seed": seed, "steps": 5, "train_s": 1, "cpu_s": 1, "predicted": digits}
        setfit.append(tmp_path / "setfit_trainings.csv", row)
    setfit.summarise(tmp_path)
    [row] = pd.read_csv(tmp_path / "setfit.csv").to_dict("records")
    assert row["accuracy"] == pytest.approx(1 - 15 / len(right)) and row["n_seeds"] == 2
    assert row["accuracy_lo"] < row["accuracy"] < row["accuracy_hi"]
    assert load("label_efficiency_figure").split(row["method"]) == ("SetFit, minilm_l6", 100)
