"""The report: complete, self-contained, reproducible, and without any text from the data."""

import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score

from findistill.errors import UserError
from findistill.report import bundle, glyphs, plots
from findistill.report.glyphs import label_names
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
    assert "2 seeds per method, too few for a claim" in page and (tmp_path / "comparisons.csv").exists()
    assert "loss &lt;is&gt; not finite" in page and "reg-8-seed2" in page
    assert "findistill -m study=moon" in page and "second-hand" in page
    [charts] = [(bundle.HERE / name).read_text() for name in bundle.CHARTS]  # which can write an <img> of its own drawing
    assert not re.search(r'(?:src|href)="(?!data:|#)', page.replace(charts, "")), "the page reaches outside itself"
    for path in (files.html, files.table_csv, files.table_md):
        assert "must not leave the data" not in path.read_text()
    table = pd.read_csv(files.table_csv).set_index("method")
    gold, first, second = (run.predictions for run in (runs[0], runs[0], runs[1]))
    by_hand = np.mean([(frame["predicted"] == gold["label"]).mean() for frame in (first, second)])
    assert table.loc["CLS ≥5", "accuracy"] == pytest.approx(by_hand)
    each = [recall_score(gold["label"], frame["predicted"], labels=["neutral"], average=None) for frame in (first, second)]
    of_labels = pd.read_csv(tmp_path / "by_label.csv").set_index(["method", "label"])
    assert of_labels.loc[("CLS ≥5", "neutral"), "recall"] == pytest.approx(np.mean(each))
    assert "loss &lt;is> not finite" in files.table_md.read_text()
    assert not list(tmp_path.rglob("*.tmp"))


def test_figures_have_their_numbers_as_alternative_text(runs: list[Run], tmp_path: Path) -> None:
    files = build_report("moon", runs, [], tmp_path, resamples=50)
    alts = re.findall(r'<img src="[^"]*" alt="([^"]*)"', files.html.read_text())
    assert len(alts) == len(FIGURES)
    table = pd.read_csv(files.table_csv).set_index("method")
    for method in ("CLS ≥5", "REG ≥8"):
        assert (
            f"{method} {table.loc[method, 'accuracy']:.3g}" in alts[0]
            and f"{method} {table.loc[method, 'macro_f1']:.3g}" in alts[0]
        )
    assert f"CLS {table.loc['CLS ≥5', 'accuracy']:.3g} at 5, {table.loc['CLS ≥8', 'accuracy']:.3g} at 8" in " ".join(alts)
    assert all(label in " ".join(alts) for label in ("gold by predicted: negative", "% right", "perfect calibration"))
    charts = [json.loads(each) for each in re.findall(r'<script type="application/json">(.*?)</script>', files.html.read_text())]
    assert len(charts) == 3, "confusion, calibration and agreement state their numbers"
    accuracy = f"agreement threshold ≥5: accuracy {table.loc['CLS ≥5', 'accuracy']:.3f} ["
    assert any(point.get("text", "").startswith(accuracy) for one in charts for line in one["series"] for point in line["data"])
    of_panels = [{one["name"] for one in charts[-1]["series"] if one["xAxisIndex"] == at} for at in range(4)]
    assert of_panels[0] and of_panels.count(of_panels[0]) == 4, "a curve has one name in all panels"


def test_the_same_runs_give_the_same_bytes(new_run: Callable[..., Run], tmp_path: Path) -> None:
    runs = [new_run("teacher", "teacher", seed, skill=1.0, config={"seed": seed}) for seed in (0, 1)]
    pages = []
    for _ in range(2):
        build_report("s", runs, [], tmp_path, published="fingpt", resamples=50)
        pages.append(contents(tmp_path))
    assert pages[0] == pages[1]


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


def test_the_summary_says_how_far_the_best_is_from_the_best_baseline(new_run: Callable[..., Run], tmp_path: Path) -> None:
    config = {"data": {"name": "made_up"}}
    runs = [new_run("teacher", "teacher", seed, skill=3.0, config={**config, "seed": seed}) for seed in range(5)]
    runs += [new_run(name, "baseline", None, skill=skill, config=config) for name, skill in (("weak", 0.1), ("strong", 0.5))]
    page = html.unescape(build_report("s", runs, [], tmp_path, resamples=50).html.read_text())
    assert re.search(
        r"Its difference to the best baseline, strong: \+\d+\.\d \[.*?\] points of accuracy \(p .*?, over .*?\)\.", page
    )


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
    assert {path.name for path in paths} == {"learning_curve.png", "confusion_matrix.png", "precision_recall.png"}
    assert all(path.stat().st_size > 5000 for path in paths)


def test_what_is_left_out_and_what_is_not_above_the_majority_is_said(new_run: Callable[..., Run], tmp_path: Path) -> None:
    good = new_run("good", "teacher", 0, skill=4.0, config={"seed": 0})
    frame = good.predictions.assign(predicted="positive")
    same = replace(good, method="always <b>positive</b>", predictions=frame)
    baseline = replace(good, method="also positive", kind="baseline", predictions=frame)
    files = build_report(
        "s", [good, same, baseline], [], tmp_path, resamples=50, left_out=[{"job": "teacher-x", "error": "no file"}]
    )
    page, text = files.html.read_text(), files.table_md.read_text()
    assert "<li><strong>teacher-x</strong>: no file</li>" in page and "not in this report: teacher-x: no file" in text
    lines = [line for line in text.splitlines() if "- unreliable (" in line]
    assert len(lines) == 1 and "always &lt;b>positive&lt;/b>: it predicts the same label for every text; accuracy 0." in lines[0]
    assert "is below 0.4" in lines[0] and "Unreliable:" in page


def test_a_figure_that_fails_is_left_out(
    new_student: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("no")

    monkeypatch.setattr(plots, "comparison", broken)
    files = build_report("s", [new_student("cls", 5, 0, 1.0)], [], tmp_path, resamples=50)
    assert "comparison" not in {path.stem for path in files.figures} and "confusion_matrix" in {
        path.stem for path in files.figures
    }
    assert ": ZeroDivisionError: no" in caplog.text and files.html.exists()


LABELS = {
    "Chinese": ["利好", "利空", "中性"],
    "Arabic": ["الربح", "خسارة", "محايد"],
    "emoji": ["🚀", "📉", "🤷🏽"],
    "formulas": ["$x_{$", "a $\\frac{1}$", "{b}"],
    "underscores": ["_a", "__b", "c_d"],
    "long": ["a very long name of a label " * 8, "another" * 30, "c"],
    "controls": ["a\tb", "a\nb", "\x07"],
    "topics": [f"topic {number}" for number in range(20)],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.filterwarnings("error")
def test_figures_of_any_labels(labels: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    gold = [*labels, *rng.choice(labels, 20)]
    shares = rng.dirichlet(np.ones(len(labels)), len(gold))
    predicted = [labels[column] for column in shares.argmax(axis=1)]
    assert len(plots.save_run_figures(tmp_path, [], gold, shares, predicted, labels)) == 2
    assert "left out" not in caplog.text
    names = label_names(labels)
    assert all(len(name) < 30 and not name.startswith("_") for name in names)


def test_labels_that_no_font_has_are_numbered_and_explained(
    new_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glyphs, "_has_glyph", lambda character: character.isascii())
    run = new_run("m", "teacher", 0, skill=1.0, config={"seed": 0})
    names = dict(zip(("negative", "neutral", "positive"), ("利空", "flat", "利好"), strict=True))
    frame = run.predictions.replace(names).rename(columns={f"p_{old}": f"p_{new}" for old, new in names.items()})
    page = build_report("s", [replace(run, predictions=frame)], [], tmp_path, resamples=50).html.read_text()
    assert label_names(list(names.values())) == ["label 1", "flat", "label 3"]
    assert "In the figures, label 1 is 利空, label 3 is 利好, because no installed font has these" in page
