"""Which rows `stage=report` finds in a study's folder, and which baselines it sets beside annotators."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from findistill.errors import UserError
from findistill.runs import job as jobs
from findistill.runs.store import Store
from findistill.runs.tracking import Tracker
from findistill.settings.compose import config_dir, plain
from findistill.settings.schema import Report
from findistill.stages import annotate, report
from findistill.stages import inputs as stage_inputs


def settings(folder: Path, *overrides: str) -> DictConfig:
    words = ["stage=annotate", "data=demo", "data.pool=30", "annotate.limit=40", "shots.k=4", "study=s", *overrides]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("config", overrides=[*words, f"runs_dir={folder}", "logger=none"])


def leave(job: jobs.Job, frame: pd.DataFrame, metrics: dict[str, float]) -> None:
    """The files of a done job with these predictions, sure of each."""
    for name in stage_inputs.dataset(job).labels.names:
        frame[f"p_{name}"] = (frame["predicted"] == name).astype(float)
    job.folder.mkdir(parents=True)
    frame.to_parquet(job.folder / "predictions.parquet", index=False)
    OmegaConf.save(OmegaConf.create(plain(job.config)), job.folder / "config.yaml")
    (job.folder / "status.json").write_text(json.dumps({"state": "done", "device": "cpu"}))
    (job.folder / "metrics.json").write_text(json.dumps(metrics))


def write_job(folder: Path, *overrides: str, right: float = 0.7) -> None:
    """An annotate job as it is left behind: the pool's gold labels, some of them wrong."""
    config = settings(folder, *overrides)
    key = "-".join(overrides) or "plain"
    path = folder / "s" / f"annotate-{key}"
    job = jobs.Job(config, path, Store(folder / ".artifacts"), Tracker(path, "none"))  # type: ignore[arg-type]
    data = stage_inputs.dataset(job)
    rows = stage_inputs.unlabelled(job, data)
    hit = np.random.default_rng(len(key)).random(len(rows)) < right
    predicted = [own if sure else "neutral" for own, sure in zip(rows["label"], hit, strict=True)]
    frame = rows[["id", "text", "label"]].assign(predicted=predicted)
    leave(job, frame, {"annotate/accuracy": float(np.mean(frame["label"] == predicted))})


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts as counts of their letters: the neighbour vote is not what is tested."""

    def embed(texts: list[str], **_: Any) -> np.ndarray:
        counts = np.array([[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    monkeypatch.setattr("findistill.data.embeddings.embed", embed)


def test_repeats_are_named_by_their_three_settings(tmp_path: Path) -> None:
    first = plain(settings(tmp_path))
    again = plain(settings(tmp_path, "shots.order=2", "shots.seed=3", "annotate.seed=4", "annotate.concurrency=1", "seed=9"))
    assert report.identity(first)[:2] == ("annotator", "-/0/0")
    assert report.identity(again)[:2] == ("annotator", "2/3/4")
    assert report.identity(first)[2] == report.identity(again)[2], "nor do pace and the training seed make another method"
    other = plain(settings(tmp_path, "shots.selection=random"))
    assert report.identity(first)[2] != report.identity(other)[2]
    assert set(report.identity(first)[2]) == {"stage", *annotate.READS}


def test_names_of_annotators(tmp_path: Path) -> None:
    assert report.method_name(plain(settings(tmp_path, "prompt=cot")), {}) == "smollm2 cot k=4"
    several = plain(settings(tmp_path, "annotate.members=['prompt=cot','prompt=direct','prompt=carp']"))
    assert report.method_name(several, {}) == "majority of 3 annotators"


def test_baselines_stand_on_the_annotated_rows(tmp_path: Path, embedded: None) -> None:
    for overrides in (("shots.order=0",), ("shots.order=1",), ("shots.k=0",), ("prompt=cot",), ("shots.k=6", "prompt=cot")):
        write_job(tmp_path, *overrides)
    report.make(tmp_path, "s", Report(resamples=20))
    table = pd.read_csv(tmp_path / "s" / "table.csv").set_index("method")
    assert list(table.index[table["kind"] == "annotator"]) == [
        "smollm2 cot k=4", "smollm2 direct k=0", "smollm2 cot k=6", "smollm2 direct k=4",
    ]  # fmt: skip
    assert table.loc["smollm2 direct k=4", "n_seeds"] == 2 and table.loc["smollm2 direct k=4", "seeds"] == "0/0/0 1/0/0"
    # Once for each number of neighbours, eight where the prompts show none; never the llm against itself.
    assert sorted(table.index[table["kind"] == "baseline"]) == [
        "majority class", *(f"nearest-neighbour vote (k={k})" for k in (4, 6, 8)),
    ]  # fmt: skip
    assert table["test_set"].nunique() == 1 and (table["test_rows"] == 40).all()
    runs, _ = report.collect(tmp_path / "s")
    gold = runs[0].predictions["label"]
    job = jobs.Job(settings(tmp_path), tmp_path, Store(tmp_path / ".artifacts"), Tracker(tmp_path, "none"))  # type: ignore[arg-type]
    pool = stage_inputs.labelled_pool(job, stage_inputs.dataset(job))
    assert table.loc["majority class", "accuracy"] == pytest.approx((gold == pool["label"].mode()[0]).mean())


def write_learner(folder: Path, stage: str) -> None:
    """A job that learnt from human labels as it is left behind; it knows all of them."""
    config = settings(folder, f"stage={stage}")
    path = folder / "s" / f"{stage}-0"
    job = jobs.Job(config, path, Store(folder / ".artifacts"), Tracker(path, "none"))  # type: ignore[arg-type]
    data = stage_inputs.dataset(job)
    rows = data.split("test")
    frame = rows[["id", "text", "label"]].assign(predicted=rows["label"])
    leave(job, frame, {"data/kept": len(stage_inputs.supervised(data))})


def test_models_on_human_labels_have_baselines_that_know_the_same(tmp_path: Path, embedded: None) -> None:
    for stage in ("teacher", "qlora"):
        write_learner(tmp_path, stage)
    report.make(tmp_path, "s", Report(resamples=20))
    table = pd.read_csv(tmp_path / "s" / "table.csv").set_index("method")
    assert list(table.index) == [
        "QLoRA smollm2", "minilm_l6 on 30 human labels", "majority class", "nearest-neighbour vote (k=8)",
    ]  # fmt: skip
    assert table["test_set"].nunique() == 1 and table.loc["nearest-neighbour vote (k=8)", "accuracy"] < 1
    job = jobs.Job(settings(tmp_path), tmp_path, Store(tmp_path / ".artifacts"), Tracker(tmp_path, "none"))  # type: ignore[arg-type]
    data = stage_inputs.dataset(job)
    often = stage_inputs.supervised(data)["label"].mode()[0]
    assert table.loc["majority class", "accuracy"] == pytest.approx((data.split("test")["label"] == often).mean())


def test_no_baseline_learns_from_the_rows_it_is_tested_on(tmp_path: Path, embedded: None) -> None:
    # Without a pool the labelled texts are the annotated ones: the nearest neighbour of each would be itself.
    write_job(tmp_path, "data.pool=0", "annotate.limit=null")
    report.make(tmp_path, "s", Report(resamples=20))
    assert pd.read_csv(tmp_path / "s" / "table.csv")["kind"].tolist() == ["annotator"]


def test_annotations_without_gold_labels_leave_nothing_to_report(tmp_path: Path) -> None:
    write_job(tmp_path)
    next((tmp_path / "s").glob("*/predictions.parquet")).unlink()
    with pytest.raises(UserError, match=r"done and scored.*\n.*gold labels"):
        report.make(tmp_path, "s", Report())
