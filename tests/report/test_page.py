"""The report: complete, self-contained, the same twice, without a word of the data."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from findistill.errors import UserError
from findistill.report import plots
from findistill.report.methods import Run
from findistill.report.page import build_report

FIGURES = {"thresholds", "comparison", "precision_recall", "confusion_matrix", "calibration", "agreement"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_whole_study(runs: list[Run], tmp_path: Path) -> None:
    failed = [{"job": "reg-8-seed2", "method": "REG ≥8", "error": "loss <is> not finite"}]
    settings = mpl.rcParams.copy()
    files = build_report(
        "moon", runs, failed, tmp_path, published="reddit_cls_vs_reg", resamples=200, command="findistill -m study=moon"
    )
    assert mpl.rcParams.copy() == settings
    assert {path.stem for path in files.figures} == FIGURES
    assert {path.suffix for path in files.figures} == {".png", ".svg"}
    page = files.html.read_text()
    assert "CLS ≥8 against REG ≥5, CLS against REG: −" in page and "different (p &lt; 0.001; 300 rows" in page
    assert "2 seeds of each at least" in page and (tmp_path / "comparisons.csv").exists()
    assert "loss &lt;is&gt; not finite" in page and "reg-8-seed2" in page
    assert "findistill -m study=moon" in page and "second-hand" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page), "the page reaches outside itself"
    for path in (files.html, files.table_csv, files.table_md):
        assert "must not leave the data" not in path.read_text()
    table = pd.read_csv(files.table_csv).set_index("method")
    gold, first, second = (run.predictions for run in (runs[0], runs[0], runs[1]))
    by_hand = np.mean([(frame["predicted"] == gold["label"]).mean() for frame in (first, second)])
    assert table.loc["CLS ≥5", "accuracy"] == pytest.approx(by_hand)
    assert "loss <is> not finite" in files.table_md.read_text()
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_same_runs_give_the_same_bytes(new_run: Callable[..., Run], tmp_path: Path) -> None:
    runs = [new_run("teacher", "teacher", seed, skill=1.0, config={"seed": seed}) for seed in (0, 1)]
    made = []
    for _ in range(2):
        build_report("s", runs, [], tmp_path, published="fingpt", resamples=50)
        made.append(contents(tmp_path))
    assert made[0] == made[1]


def test_when_nothing_sets_the_objectives_apart_it_says_so(new_student: Callable[..., Run], tmp_path: Path) -> None:
    same = [new_student("cls", 5, 0, 1.0), new_student("reg", 5, 0, 1.02)]
    page = build_report("s", same, [], tmp_path, resamples=100).html.read_text()
    assert "not distinguishable" in page


def test_selection_on_the_test_split_is_stated(new_student: Callable[..., Run], tmp_path: Path) -> None:
    runs = [new_student("cls", 5, 0, 1.0), new_student("reg", 5, 0, 2.0)]
    del runs[0].metrics["val/macro_f1"]
    assert "Selected on the rows that it is scored on" in build_report("s", runs, [], tmp_path, resamples=50).html.read_text()


def test_a_study_of_baselines_and_hard_answers_alone(new_run: Callable[..., Run], tmp_path: Path) -> None:
    run = new_run("majority class", "baseline", None, skill=0.0, config={"data": {"name": "made_up"}})
    bare = replace(run, predictions=run.predictions[["id", "label", "predicted"]])
    files = build_report("s", [bare], [], tmp_path, resamples=50)
    assert {path.stem for path in files.figures} == {"comparison", "confusion_matrix"}
    assert "Best method: majority class" in files.html.read_text()


def test_each_test_set_has_its_own_section_and_figures(new_student: Callable[..., Run], tmp_path: Path) -> None:
    other = new_student("reg", 5, 0, 2.0, n=200)
    other = replace(other, config={**other.config, "data": {"name": "Other set"}})
    files = build_report("s", [new_student("cls", 5, 0, 1.0), other], [], tmp_path, resamples=50)
    names = {path.stem for path in files.figures}
    assert {"made_up_comparison", "other_set_comparison"} <= names
    assert "Test set" in files.table_md.read_text()


def test_the_annotators_answers_on_the_training_texts(new_student: Callable[..., Run], tmp_path: Path) -> None:
    annotations = pd.DataFrame(
        {
            "agreement": [8, 8, 5, 0],
            "n_samples": 8,
            "label": ["neutral", "neutral", "positive", None],
            "gold": ["neutral", None, "negative", "neutral"],
        }
    )
    files = build_report("s", [new_student("cls", 5, 0, 1.0)], [], tmp_path, resamples=50, annotations=annotations)
    assert "agreement" in {path.stem for path in files.figures}
    unlabelled = annotations.drop(columns="gold")
    assert len(plots.agreement(unlabelled).axes) == 1


def test_nothing_to_report_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="study=moon: no finished job"):
        build_report("moon", [], [], tmp_path)
    assert not list(tmp_path.iterdir())


def test_figures_of_one_run(tmp_path: Path, label_names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    gold = [label_names[index] for index in rng.choice(3, 50)]
    history = [
        {
            "epoch": 1,
            "train/loss": 1.0,
            "val/loss": 0.9,
            "val/macro_f1": 0.4,
            "val/accuracy": 0.5,
            "lr": 1e-4,
            "seconds": 1,
        },
        {
            "epoch": 2,
            "train/loss": 0.7,
            "val/loss": 0.8,
            "val/macro_f1": 0.6,
            "val/accuracy": 0.7,
            "lr": 1e-5,
            "seconds": 1,
        },
    ]
    shares = rng.dirichlet(np.ones(3), 50)
    paths = plots.save_run_figures(tmp_path / "figures", history, gold, shares, [None, *gold[1:]], label_names)
    assert {path.name for path in paths} == {
        f"{name}.{suffix}" for name in ("learning_curve", "confusion_matrix", "precision_recall") for suffix in ("png", "svg")
    }
    assert all(path.stat().st_size > 5000 for path in paths)
