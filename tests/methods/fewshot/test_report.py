"""The report of a study of few-shot prompts: made-up runs with known effects."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from findistill.data import training_texts
from findistill.methods.fewshot import plots as shots_plots
from findistill.methods.fewshot import report as shots_report
from findistill.methods.fewshot.report import AGAINST_NONE, AGAINST_OTHERS, DIFFER_IN
from findistill.methods.qlora.report import AGAINST_CLASSIFIERS, OWN_PROMPTS
from findistill.report.comparisons import compare, contrasts_table
from findistill.report.methods import Method, Run, gather
from findistill.report.page import build_report, summary
from findistill.report.parts import Results
from findistill.report.style import pareto_front
from findistill.stats.intervals import seed_means
from tests.fixtures.studies import SECRET, make_run

SIZES = {"small": 80e6, "large": 780e6}


def fewshot_run(llm: str, k: int, selection: str, seed: int, skill: float, speed: float = 10.0, **metrics: float) -> Run:
    """One few-shot job, as collected by the report."""
    config = {
        "data": {"name": "made_up"},
        "llm": {"name": llm},
        "prompt": {"name": "direct"},
        "shots": {"k": k, "selection": selection if k else "random"},
        "fewshot": {"limit": None, "scoring": "auto"},
    }
    name = f"{llm} direct k={k}" + (f" {selection}" if k else "")
    metrics = {"throughput/texts_per_s": speed, "model/parameters": SIZES[llm], **metrics}
    return make_run(name, "fewshot", seed, skill=skill, config=config, metrics=metrics)


def study() -> list[Run]:
    runs = [fewshot_run(llm, 0, "", 0, better, 20.0 / (1 + better)) for llm, better in (("large", 1.0), ("small", 0.2))]
    for llm, better in (("large", 1.0), ("small", 0.2)):
        for k in (2, 10):
            runs += [fewshot_run(llm, k, "random", seed, better + 0.03 * k + 0.1 * seed, 5.0 / (1 + better)) for seed in (0, 1)]
            runs.append(fewshot_run(llm, k, "nearest", 0, better + 0.2 * k, 2.0 / (1 + better)))
    data = {"data": {"name": "made_up"}}
    tuned = {**data, "seed": 0, "teacher": {"name": "tuned"}}
    runs.append(make_run("tuned", "teacher", 0, skill=3.5, config=tuned, metrics={"throughput/texts_per_s": 100.0}))
    lora = {**data, "llm": {"name": "small"}, "prompt": {"name": "direct"}, "qlora": {"rank": 16}}
    runs += [make_run("small QLoRA", "qlora", seed, skill=3.0, config=lora) for seed in (0, 1)]
    runs.append(make_run("nearest-neighbour vote (k=2)", "baseline", None, skill=0.5, config={**data, "k": 2}))
    return runs


@pytest.fixture(scope="module")
def methods() -> list[Method]:
    return gather(study())


def estimates(methods: list[Method]) -> dict[str, Any]:
    return {m.name: seed_means(m.gold, m.predicted, 3, resamples=50) for m in methods}


def test_families_of_tests(methods: list[Method]) -> None:
    results = compare(methods, resamples=50)
    pairs = {family: {(one.a, one.b) for one in results if one.family == family} for family in {one.family for one in results}}
    differ = {f"{DIFFER_IN}shots.selection", f"{DIFFER_IN}llm"}
    assert pairs.keys() == {AGAINST_CLASSIFIERS, AGAINST_NONE, AGAINST_OTHERS, OWN_PROMPTS} | differ
    assert pairs[AGAINST_CLASSIFIERS] == {("small QLoRA", "tuned")}
    assert len(pairs[AGAINST_NONE]) == 8 and all(b.endswith("k=0") for _, b in pairs[AGAINST_NONE])
    assert all(a.split()[0] == b.split()[0] for a, b in pairs[AGAINST_NONE])
    assert pairs[OWN_PROMPTS] == {("small QLoRA", m.name) for m in methods if m.name.startswith("small direct")}
    assert {a for a, _ in pairs[AGAINST_OTHERS]} == {"large direct k=10 nearest"}
    assert len(pairs[f"{DIFFER_IN}shots.selection"]) == 4 and len(pairs[f"{DIFFER_IN}llm"]) == 5


def test_panels_come_by_size_and_lines_begin_without_demonstrations(methods: list[Method]) -> None:
    panels = shots_plots.panels_of(methods)
    assert list(panels) == ["small", "large"] and set(panels["large"]) == {"random", "nearest"}
    assert [shots_plots.shots(member) for member in panels["small"]["nearest"]] == [0, 2, 10]


def test_the_front_is_what_none_is_cheaper_and_better_than(methods: list[Method]) -> None:
    spent, unit = shots_plots.spending(methods)
    assert unit.startswith("seconds") and spent["tuned"] == 10 and "nearest-neighbour vote (k=2)" not in spent
    scores = {name: each["accuracy"] for name, each in estimates(methods).items()}
    front = pareto_front(spent, scores)
    for name in spent:
        better = [o for o in spent if spent[o] <= spent[name] and scores[o].mean > scores[name].mean]
        assert (name in front) == (not better)


def test_prices_are_used_where_all_have_one(methods: list[Method]) -> None:
    runs = [fewshot_run("small", 0, "", 0, 1.0, **{"cost/usd_per_1000_texts": 0.02}), fewshot_run("large", 0, "", 0, 2.0)]
    assert shots_plots.spending(gather(runs))[1].startswith("seconds")
    runs[1].metrics["cost/usd_per_1000_texts"] = 0.3
    assert shots_plots.spending(gather(runs)) == (
        {"small direct k=0": 0.02, "large direct k=0": 0.3},
        "US dollars for 1,000 predictions",
    )


def test_the_summary_and_the_tables_hold_the_numbers(methods: list[Method]) -> None:
    tests = compare(methods, resamples=50)
    results = Results("made_up", methods, estimates(methods))
    assert summary(results, tests).startswith("Best few-shot method: large direct k=10 nearest, accuracy ")
    gaps = {(one.a, one.b): one.accuracy.difference for one in tests}
    assert gaps["large direct k=10 nearest", "tuned"] < 0 and ("small QLoRA", "tuned") in gaps
    changes = contrasts_table(tests).set_index("A against B")
    own = changes.loc["small QLoRA against the same model with a prompt"]
    assert own["Pairs"] == own["p < 0.05, Holm"] == "5"
    selections = changes.loc["shots.selection=nearest against random"]
    assert selections["Pairs"] == "4" and selections["Accuracy, mean"].startswith("+")
    assert changes.loc["k=10 against 0", "Pairs"] == "4"
    [front] = shots_report.PART.tables(results)
    assert front.frame.set_index("method").loc["tuned", "cost"] == 10


def test_missing_answers_are_reported_as_coverage(methods: list[Method], tmp_path: Path) -> None:
    quiet = fewshot_run("small", 0, "", 0, 1.0)
    quiet.predictions.loc[:59, "predicted"] = None
    files = build_report("s", [quiet], [], tmp_path, resamples=20)
    assert "| 80.0% |" in files.table_md.read_text()


def test_all_stand_on_the_rows_that_were_asked() -> None:
    whole = make_run("tuned", "teacher", 0, skill=2, config={"data": {"name": "made_up"}}, metrics={"test/accuracy": 1.0, "x": 1})
    other = make_run("tuned", "teacher", 0, skill=2, config={"data": {"name": "other"}})
    few = fewshot_run("small", 0, "", 0, 1.0)
    few.predictions.drop(index=range(200), inplace=True)
    first, second, third = shots_report.on_common_rows([whole, other, few])
    assert list(first.predictions["id"]) == list(few.predictions["id"]) and first.metrics == {"x": 1}
    assert second is other and third is few
    assert [m.test_set for m in gather([first, few])] == ["made_up", "made_up"]
    few.predictions["id"] = [f"elsewhere-{row}" for row in range(len(few.predictions))]
    assert shots_report.on_common_rows([whole, few]) == [whole, few]  # different rows: none in common


def test_test_texts_that_a_model_was_trained_on_are_counted_on_the_common_rows(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    training_texts.write(tmp_path / "model", [SECRET])  # the text of every row
    learnt = {"test/learnt_from": 300.0, "test/accuracy": 1.0}
    whole = make_run("tuned", "teacher", 0, skill=2, config={"data": {"name": "made_up"}}, metrics=learnt)
    few = fewshot_run("small", 0, "", 0, 1.0)
    few.predictions.drop(index=range(200), inplace=True)
    cut, _ = shots_report.on_common_rows([replace(whole, folder=tmp_path), few])
    assert cut.metrics == {"test/learnt_from": 100}


def test_a_report_has_the_figures(tmp_path: Path, methods: list[Method]) -> None:
    files = build_report("shots", study(), [], tmp_path, resamples=50)
    figures = {path.stem for path in files.figures}
    assert {"shots", "tuned_and_shots", "cost", "comparison"} <= figures
    page = files.html.read_text(encoding="utf-8")
    assert "Best few-shot method: " in page and "a fine-tuned model against its own prompts" in page
    assert len(pd.read_csv(files.comparisons_csv)) == len(compare(methods, resamples=50))
    table = pd.read_csv(files.table_csv).set_index("method")
    assert table.loc["large direct k=2 random", "n_seeds"] == 2
    assert np.isclose(table.loc["tuned", "throughput_texts_per_s"], 100)


def test_many_methods_are_drawn_by_their_best(monkeypatch: pytest.MonkeyPatch, methods: list[Method]) -> None:
    monkeypatch.setattr(shots_report, "MOST", 3)
    names = [method.name for method in shots_report.selected(methods, estimates(methods))]
    assert names == [
        "large direct k=0", "small direct k=0", "large direct k=10 nearest", "small direct k=10 nearest", "tuned", "small QLoRA",
        "nearest-neighbour vote (k=2)",
    ]  # fmt: skip
