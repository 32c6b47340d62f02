"""Which rows `stage=report` finds in a study's folder, and which baselines it adds for annotators."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from findistill.config.compose import plain
from findistill.config.fields import result_settings
from findistill.core.run_folder import best_job, report_is_current
from findistill.core.store import Store
from findistill.data.dataset import Dataset
from findistill.data.serialization import read_folder
from findistill.data.texts import TextData
from findistill.errors import UserError
from findistill.methods import rows as reading
from findistill.methods.annotate.report import PART as ANNOTATOR
from findistill.methods.baselines.steps import Baseline
from findistill.methods.report.stage import make
from findistill.report.config import Report
from findistill.report.runs import collect
from tests.fixtures.composing import shipped


def settings(folder: Path, *overrides: str) -> DictConfig:
    words = ["stage=annotate", "data=demo", "data.labelled=30", "annotate.limit=40", "shots.k=4", "study=s", *overrides]
    with shipped():
        return compose("config", overrides=[*words, f"runs_dir={folder}", "logger=none"])


def leave(config: DictConfig, folder: Path, frame: pd.DataFrame, metrics: dict[str, float]) -> None:
    """Write the files of a finished job with these predictions, each with probability 1."""
    for name in config.data.labels:
        frame[f"p_{name}"] = (frame["predicted"] == name).astype(float)
    folder.mkdir(parents=True)
    frame.to_parquet(folder / "predictions.parquet", index=False)
    OmegaConf.save(OmegaConf.create(plain(config)), folder / "config.yaml")
    (folder / "status.json").write_text(json.dumps({"state": "done", "device": "cpu"}))
    (folder / "metrics.json").write_text(json.dumps(metrics))


def read_data(config: DictConfig, folder: Path) -> TextData:
    return read_folder(Store(folder / ".artifacts").build(Dataset(config.data)))


def write_job(folder: Path, *overrides: str, right: float = 0.7) -> None:
    """Write the files of a finished annotate job: gold labels, some replaced by wrong ones."""
    config = settings(folder, *overrides)
    key = "-".join(overrides) or "plain"
    rows = reading.rows_to_annotate(read_data(config, folder), config.annotate.limit, config.data.seed)
    hit = np.random.default_rng(len(key)).random(len(rows)) < right
    predicted = [own if sure else "neutral" for own, sure in zip(rows["label"], hit, strict=True)]
    frame = rows[["id", "text", "label"]].assign(predicted=predicted)
    leave(config, folder / "s" / f"annotate-{key}", frame, {"annotate/accuracy": float(np.mean(frame["label"] == predicted))})


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embed texts as letter counts: the neighbour vote is not what is tested."""

    def embed(texts: list[str], **_: Any) -> np.ndarray:
        counts = np.array([[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    # Patches below `embed`, whose cache lives as long as the process and is shared with tests on the same texts.
    monkeypatch.setattr("findistill.models.embeddings._embedded", embed)


def identity(config: DictConfig) -> tuple[int | str | None, dict[str, Any]]:
    return ANNOTATOR.identity({str(name): result_settings(config[name], references=True) for name in config})


def test_repeats_are_named_by_their_three_settings(tmp_path: Path) -> None:
    first = settings(tmp_path)
    again = settings(tmp_path, "shots.order_seed=2", "shots.seed=3", "annotate.seed=4", "annotate.concurrency=1", "seed=9")
    assert identity(first)[0] == "-/0/0" and identity(again)[0] == "2/3/4"
    assert identity(first)[1] == identity(again)[1], "nor do runtime settings and the training seed make another method"
    other = settings(tmp_path, "shots.selection=random")
    assert identity(first)[1] != identity(other)[1]
    assert {"data", "llm", "prompt", "shots", "annotate"} <= set(identity(first)[1])


def test_names_of_annotators(tmp_path: Path) -> None:
    assert ANNOTATOR.name(plain(settings(tmp_path, "prompt=cot")), {}) == "smollm2 cot k=4"
    several = plain(settings(tmp_path, "annotate.ensemble=['prompt=cot','prompt=direct','prompt=carp']"))
    assert ANNOTATOR.name(several, {}) == "majority of 3 annotators"


def test_baselines_stand_on_the_annotated_rows(tmp_path: Path, embedded: None) -> None:
    for overrides in (
        ("shots.order_seed=0",),
        ("shots.order_seed=1",),
        ("shots.k=0",),
        ("prompt=cot",),
        ("shots.k=6", "prompt=cot"),
    ):
        write_job(tmp_path, *overrides)
    make(tmp_path, "s", Report(resamples=20))
    table = pd.read_csv(tmp_path / "s" / "table.csv").set_index("method")
    assert list(table.index[table["kind"] == "annotator"]) == [
        "smollm2 cot k=4", "smollm2 direct k=0", "smollm2 cot k=6", "smollm2 direct k=4",
    ]  # fmt: skip
    assert table.loc["smollm2 direct k=4", "n_seeds"] == 2 and table.loc["smollm2 direct k=4", "seeds"] == "0/0/0 1/0/0"
    # Once for each number of neighbours, eight where the prompts have no shots; never the LLM against itself.
    assert sorted(table.index[table["kind"] == "baseline"]) == [
        "TF-IDF and logistic regression", "frozen MiniLM and logistic regression", "majority class",
        *(f"nearest-neighbour vote (k={k})" for k in (4, 6, 8)),
    ]  # fmt: skip
    assert table["test_set"].nunique() == 1 and (table["test_rows"] == 40).all()
    runs, *_ = collect(tmp_path / "s")
    gold = runs[0].predictions["label"]
    pool = reading.labelled_rows(read_data(settings(tmp_path), tmp_path))
    assert table.loc["majority class", "accuracy"] == pytest.approx((gold == pool["label"].mode()[0]).mean())


def write_learner(folder: Path, stage: str, *overrides: str) -> None:
    """Write the files of a finished job trained on human labels; all its predictions are right."""
    config = settings(folder, f"stage={stage}", *overrides)
    path = folder / "s" / f"{stage}-{'-'.join(overrides) or 0}"
    data = read_data(config, folder)
    rows = data.split("test")
    frame = rows[["id", "text", "label"]].assign(predicted=rows["label"])
    leave(config, path, frame, {"data/kept": len(reading.labelled_rows(data))})


def test_jobs_that_differ_in_their_further_test_sets_share_their_baselines(tmp_path: Path, embedded: None) -> None:
    write_learner(tmp_path, "teacher", "seed=0")
    write_learner(tmp_path, "teacher", "seed=0", "evaluate.also=['demo rows=60']")
    make(tmp_path, "s", Report(resamples=20))
    table = pd.read_csv(tmp_path / "s" / "table.csv")
    own = table[table["kind"] == "baseline"]
    assert len(own) == 4 and own["method"].is_unique and (own["n_seeds"] == 1).all()


def test_draws_of_the_labelled_rows_are_repeats_of_a_method_and_of_its_baselines(tmp_path: Path, embedded: None) -> None:
    for draw in (0, 1):
        write_learner(tmp_path, "teacher", f"seed={draw}", f"data.labelled_seed={draw}")
    make(tmp_path, "s", Report(resamples=20))
    table = pd.read_csv(tmp_path / "s" / "table.csv").set_index("method")
    assert table["n_seeds"].to_dict() == dict.fromkeys(table.index, 2) and table["test_set"].nunique() == 1
    assert {"minilm_l6 on 30 human labels", "TF-IDF and logistic regression"} <= set(table.index)
    tests = pd.read_csv(tmp_path / "s" / "comparisons.csv")
    assert len(tests) == 4 and (tests["over"] == "seeds and rows").all()


def test_models_on_human_labels_have_baselines_that_know_the_same(tmp_path: Path, embedded: None) -> None:
    for stage in ("teacher", "qlora"):
        write_learner(tmp_path, stage)
    make(tmp_path, "s", Report(resamples=20))
    table = pd.read_csv(tmp_path / "s" / "table.csv").set_index("method")
    assert list(table.index) == [
        "QLoRA smollm2", "minilm_l6 on 30 human labels", "majority class", "nearest-neighbour vote (k=8)",
        "TF-IDF and logistic regression", "frozen MiniLM and logistic regression",
    ]  # fmt: skip
    assert table["test_set"].nunique() == 1 and table.loc["nearest-neighbour vote (k=8)", "accuracy"] < 1
    data = read_data(settings(tmp_path), tmp_path)
    often = reading.labelled_rows(data)["label"].mode()[0]
    assert table.loc["majority class", "accuracy"] == pytest.approx((data.split("test")["label"] == often).mean())


@pytest.mark.parametrize("kind", ["majority", "neighbours"])
def test_jobs_that_are_scored_on_the_same_rows_share_a_baseline(kind: str) -> None:
    jobs = (
        ["stage=student"],
        ["stage=fewshot", "annotate.limit=null"],
        ["stage=fewshot", "annotate.limit=null", "fewshot.limit=20"],
    )
    student, fewshot, limited = (Baseline(settings(Path(), *words), kind).key for words in jobs)
    assert student == fewshot != limited


def test_no_baseline_learns_from_the_rows_it_is_tested_on(tmp_path: Path, embedded: None) -> None:
    # Without a pool, the labelled texts are the annotated ones: each would be its own nearest neighbour.
    write_job(tmp_path, "data.labelled=0", "annotate.limit=null")
    make(tmp_path, "s", Report(resamples=20))
    assert pd.read_csv(tmp_path / "s" / "table.csv")["kind"].tolist() == ["annotator"]


def test_a_current_report_names_the_best_job(tmp_path: Path) -> None:
    for prompt, right in (("cot", 0.9), ("direct", 0.5)):
        write_job(tmp_path, f"prompt={prompt}", "data.labelled=0", right=right)
    assert best_job(tmp_path / "s") is None, "there is no report yet"
    make(tmp_path, "s", Report(resamples=20, baselines=["majority"]))
    [better] = (tmp_path / "s").glob("annotate-*cot*")
    assert best_job(tmp_path / "s") == better
    (better / "status.json").write_text(json.dumps({"state": "done", "ended": "later"}))
    assert best_job(tmp_path / "s") is None, "that job was run again"


def test_annotations_without_gold_labels_leave_nothing_to_report(tmp_path: Path) -> None:
    write_job(tmp_path)
    next((tmp_path / "s").glob("*/predictions.parquet")).unlink()
    with pytest.raises(UserError, match=r"done and scored.*\n.*gold labels"):
        make(tmp_path, "s", Report())


def test_seeds_on_the_same_draws_of_labelled_rows_are_not_independent(tmp_path: Path, embedded: None) -> None:
    for seed in (0, 1):
        for draw in (0, 1, 2):
            write_learner(tmp_path, "teacher", f"seed={seed}", f"data.labelled_seed={draw}")
    make(tmp_path, "s", Report(resamples=20))
    table = pd.read_csv(tmp_path / "s" / "table.csv").set_index("method")
    assert table.loc["minilm_l6 on 30 human labels", "n_seeds"] == 6
    tests = pd.read_csv(tmp_path / "s" / "comparisons.csv")
    assert (tests[["n_seeds_a", "n_seeds_b"]] == 3).all(axis=None), "paired by draw"


def test_the_report_names_done_jobs_that_it_leaves_out_and_knows_when_it_is_old(
    tmp_path: Path, embedded: None, caplog: pytest.LogCaptureFixture
) -> None:
    write_learner(tmp_path, "teacher")
    for name in ("gone", "damaged", "empty", "no-metrics", "no-config"):
        shutil.copytree(tmp_path / "s" / "teacher-0", tmp_path / "s" / name)
    (tmp_path / "s" / "gone" / "predictions.parquet").unlink()
    (tmp_path / "s" / "damaged" / "predictions.parquet").write_bytes(b"PAR1")
    (tmp_path / "s" / "empty" / "predictions.parquet").write_bytes(b"")
    (tmp_path / "s" / "no-metrics" / "metrics.json").write_text("")
    (tmp_path / "s" / "no-config" / "config.yaml").unlink()
    assert not report_is_current(tmp_path / "s")
    make(tmp_path, "s", Report(resamples=20))
    page = (tmp_path / "s" / "report.html").read_text()
    for name in ("gone", "damaged", "empty", "no-metrics", "no-config"):
        assert f"<li><strong>{name}</strong>: " in page and f"done, but not in the report: {name}: " in caplog.text
    assert "no predictions.parquet: the file is missing" in page
    assert report_is_current(tmp_path / "s")
    write_learner(tmp_path, "qlora")
    assert not report_is_current(tmp_path / "s")
    make(tmp_path, "s", Report(resamples=20))
    assert report_is_current(tmp_path / "s")
    (tmp_path / "s" / "qlora-0" / "status.json").write_text(json.dumps({"state": "done", "ended": "later"}))
    assert not report_is_current(tmp_path / "s"), "that job was run again"


@pytest.mark.parametrize("overrides", [["data.limit=12"], ["data.test=1"]], ids=["few", "tests only"])
def test_studies_with_little_in_them(overrides: list[str], tmp_path: Path, embedded: None) -> None:
    config = settings(tmp_path, "stage=evaluate", "data.labelled=0", *overrides)
    rows = read_data(config, tmp_path).split("test").head(5)
    leave(config, tmp_path / "s" / "evaluate-0", rows[["id", "text", "label"]].assign(predicted=rows["label"].iloc[0]), {})
    make(tmp_path, "s", Report(resamples=20))
    assert (tmp_path / "s" / "report.html").exists()


def test_a_study_on_texts_without_labels_is_reported_on_its_further_test_set(tmp_path: Path, embedded: None) -> None:
    pd.DataFrame({"text": [f"text number {number}" for number in range(30)]}).to_csv(tmp_path / "own.csv", index=False)
    also = "evaluate.also=['demo limit=20']"
    config = settings(tmp_path, "stage=student", "data=csv", f"data.path={tmp_path / 'own.csv'}", "shots.k=0", "data.labelled=0",
                      "data.labels=[negative,neutral,positive]", also)  # fmt: skip
    rows = read_data(settings(tmp_path), tmp_path).split("test").head(10)
    leave(config, tmp_path / "s" / "student-0", rows[["id", "text", "label"]].assign(predicted=rows["label"]), {})
    make(tmp_path, "s", Report(resamples=20, baselines=["majority", "neighbours"]))
    assert pd.read_csv(tmp_path / "s" / "table.csv")["kind"].tolist() == ["student"]


def test_nothing_to_report_says_why(tmp_path: Path) -> None:
    write_learner(tmp_path, "teacher")
    (tmp_path / "s" / "teacher-0" / "predictions.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"nothing to report \(teacher-0: .*Parquet"):
        make(tmp_path, "s", Report())
