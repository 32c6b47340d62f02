"""The report of a study of annotators, alone and together with students: repeats, findings, table and figures."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from findistill.methods.annotate import report as annotators
from findistill.report.comparisons import compare, contrasts_table, pairs_by_setting
from findistill.report.methods import Method, Run, gather
from findistill.report.page import build_report, summary
from findistill.report.parts import Results
from findistill.report.style import looks
from findistill.report.tables import formatted
from findistill.stats.intervals import seed_means
from tests.fixtures.studies import annotator

FIGURES = {"samples", "agreement_coverage", "cost", "early_stopping", "comparison", "confusion_matrix", "calibration"}
NewAnnotator = Callable[..., Run]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two LLMs, two prompts, two k, three orders, and a baseline; the larger LLM, cot and more shots are better."""
    folder = tmp_path_factory.mktemp("answers")
    runs = [
        annotator(
            folder / f"{llm}-{prompt}-{k}-{order}", llm, prompt, k, order,
            skill=0.6 + (llm == "large") + 0.4 * (prompt == "cot") + k / 16,
            dollars=(1 + k) * (10 if llm == "large" else 1) / 100,
        )
        for llm, prompt, k, order in product(("small", "large"), ("cot", "direct"), (0, 8), (0, 1, 2))
    ]  # fmt: skip
    frame = runs[0].predictions.assign(predicted="neutral")
    return [*runs, Run("majority class", "baseline", None, {"data": {"name": "made_up"}}, {}, frame)]


@pytest.fixture(scope="module")
def methods(study: list[Run]) -> list[Method]:
    return gather(study)


def estimated(methods: list[Method]) -> dict[str, dict]:
    return {method.name: seed_means(method.gold, method.predicted, 3, resamples=100) for method in methods}


def test_orders_are_repeats_of_one_method(methods: list[Method]) -> None:
    assert len(methods) == 9 and [len(method.runs) for method in methods] == [3] * 8 + [1]
    assert [run.seed for run in methods[0].runs] == ["0/0/0", "1/0/0", "2/0/0"]


def test_other_settings_that_share_a_name_are_told_apart(new_annotator: NewAnnotator, tmp_path: Path) -> None:
    result = gather([new_annotator(tmp_path / each, selection=each, n=20) for each in ("nearest", "random")])
    assert [method.name for method in result] == ["small direct k=4 (selection=nearest)", "small direct k=4 (selection=random)"]


def test_pairs_differ_in_one_setting(methods: list[Method]) -> None:
    pairs = {axis: [(a.name, b.name) for a, b in matches] for axis, matches in pairs_by_setting(methods[:8]).items()}
    assert {axis: len(names) for axis, names in pairs.items()} == {"shots.k": 4, "prompt": 4, "llm": 4}
    assert ("small cot k=8", "small cot k=0") in pairs["shots.k"], "the larger number comes first"
    assert ("large cot k=0", "small cot k=0") in pairs["llm"], "and names by the alphabet"
    families = {one.family for one in compare(methods, resamples=50)}
    assert families == {f"annotators that differ in {axis}" for axis in pairs} | {"best annotator against the rest"}


def test_stops_are_means_over_the_repeats(methods: list[Method]) -> None:
    stops = annotators.early_stopping(methods[:8]).set_index(["method", "stop_at"])
    runs = methods[0].runs
    row = stops.loc[(methods[0].name, 3)]
    assert row["saved"] == pytest.approx(1 - np.mean([run.metrics["annotate/stop_3_samples"] for run in runs]) / 8)
    lost = [run.metrics["annotate/stop_3_accuracy"] - run.metrics["annotate/accuracy"] for run in runs]
    assert row["change"] == pytest.approx(np.mean(lost))


def test_the_marked_stop_saves_most_of_those_that_lose_little() -> None:
    rows = [("a", 8, 2, 0.7, -0.02), ("a", 8, 4, 0.4, -0.004), ("a", 8, 5, 0.3, 0.0)]
    rows += [("b", 8, 2, 0.6, 0.0), ("b", 8, 4, 0.36, -0.001), ("b", 8, 5, 0.2, 0.0)]
    stops = pd.DataFrame(rows, columns=["method", "samples", "stop_at", "saved", "change"])
    by_stop = annotators.stopping_summary(stops).set_index("stop_at")
    assert by_stop["mark"].tolist() == ["", "yes", ""]
    row = by_stop.loc[4]
    assert (row["saved"], row["change"], row["change_min"]) == pytest.approx((0.38, -0.0025, -0.004))
    assert (row["saved_min"], row["saved_max"], row["methods"]) == pytest.approx((0.36, 0.4, 2))


def test_the_summary_and_the_tables_hold_what_was_built_in(methods: list[Method]) -> None:
    tests = compare(methods, resamples=100)
    results = Results("made_up", methods, estimated(methods))
    assert summary(results, tests).startswith("Best annotator: large cot k=8, accuracy 0.")
    settings = contrasts_table(tests).set_index("A against B")
    for contrast in ("llm=large against small", "prompt=cot against direct", "shots.k=8 against 0"):
        assert settings.loc[contrast, "Pairs"] == "4" and settings.loc[contrast, "Accuracy, mean"].startswith("+")
    assert ("large cot k=8", "majority class") in {(one.a, one.b) for one in tests}
    tables = {table.name: table for table in annotators.PART.tables(results)}
    curves = tables["samples_and_agreement"].frame.set_index("method").loc["large cot k=8"]
    top = next(method for method in methods if method.name == "large cot k=8")
    assert curves["accuracy_all"] == pytest.approx(top.mean_metric("annotate/accuracy_samples_8"))
    assert curves["accuracy_all"] > curves["accuracy_1"]
    assert curves["kept_share"] == pytest.approx(top.mean_metric("annotate/kept_share_8"))
    assert "4.50" in formatted(tables["cost_front"]).iloc[:, 1].tolist()


def test_the_whole_report(study: list[Run], tmp_path: Path) -> None:
    files = build_report("annotators", study, [], tmp_path, resamples=100)
    assert {path.stem for path in files.figures} == FIGURES
    table = pd.read_csv(files.table_csv).set_index("method")
    own = [run for run in study if run.method == "small cot k=8"]
    row = table.loc["small cot k=8"]
    for column, key in (
        ("accuracy", "annotate/accuracy"), ("valid_share", "annotate/valid_share"),
        ("tokens_per_text", "annotate/tokens_per_text"),
        ("usd_per_1000_texts", "cost/usd_per_1000_texts"), ("usd_per_correct_label", "cost/usd_per_correct_label"),
        ("accuracy_samples_3", "annotate/accuracy_samples_3"), ("stop_5_samples", "annotate/stop_5_samples"),
    ):  # fmt: skip
        assert row[column] == pytest.approx(np.mean([run.metrics[key] for run in own])), column
    assert row["n_seeds"] == 3 and row["seeds"] == "0/0/0 1/0/0 2/0/0" and pd.isna(row["cpu_s"])
    markdown, page = files.table_md.read_text(), files.html.read_text()
    head = markdown.splitlines()[2]
    for title in ("Runs", "Coverage", "Valid answers", "Samples", "Tokens/text", "s/1,000 texts", "USD/1,000 texts"):
        assert f"| {title} |" in head
    assert "annotate acc." not in head, "annotate/accuracy is no test set's"
    assert (
        "Early stopping (`annotate.stop_at`), made_up" in markdown
        and (tmp_path / "early_stopping.csv").exists()
        and "200 annotated texts with gold labels" in page
    )
    assert "must not leave the data" not in markdown + page


def test_each_data_set_has_its_own_comparisons_and_figures(new_annotator: NewAnnotator, tmp_path: Path) -> None:
    runs = [
        new_annotator(tmp_path / f"{data}{prompt}", prompt=prompt, data=data, n=60)
        for data in ("tfns", "phrasebank")
        for prompt in ("cot", "direct")
    ]
    assert {(one.test_set, one.a) for one in compare(gather(runs), resamples=20) if "prompt" in one.family} == {
        ("tfns", "small cot k=4"), ("phrasebank", "small cot k=4"),
    }  # fmt: skip
    files = build_report("s", runs, [], tmp_path / "out", resamples=20)
    assert {"tfns_samples", "phrasebank_samples"} <= {path.stem for path in files.figures}


def test_beside_students_both_have_their_own_section(new_student: Callable[..., Run], study: list[Run], tmp_path: Path) -> None:
    students = [new_student("cls", 5, 0, 1.0), new_student("reg", 5, 0, 2.0)]
    alone = build_report("s", students, [], tmp_path / "alone", resamples=20)
    both = build_report("s", [*students, *study[-4:]], [], tmp_path / "both", resamples=20)
    # The downloadable CSV contains the rows of every section.
    before, after = (re.sub(r'href="data:[^"]*"', "", files.html.read_text()) for files in (alone, both))
    section = before[before.index("<h3>") : before.index('<h2 id="reading">')].replace("figures/", "figures/made_up_")
    assert section.strip() in after
    assert "Best annotator: large direct k=8" in after and "made_up_2_early_stopping" in {path.stem for path in both.figures}


def test_an_annotator_that_stopped_early_has_a_report_without_replays(new_annotator: NewAnnotator, tmp_path: Path) -> None:
    run = new_annotator(tmp_path / "a", n=40)
    metrics = {name: value for name, value in run.metrics.items() if "stop_" not in name and "_samples_" not in name}
    files = build_report("s", [replace(run, metrics=metrics)], [], tmp_path / "out", resamples=20)
    assert {path.stem for path in files.figures} == FIGURES - {"samples", "early_stopping"}
    assert "Early stopping" not in files.table_md.read_text()


def test_cost_is_in_dollars_only_where_all_have_a_price(methods: list[Method]) -> None:
    assert "US dollars" in annotators.spending(methods[:8])[1]
    first = methods[0]
    free = replace(first, runs=tuple(replace(run, metrics={**run.metrics, "cost/usd_per_1000_texts": 0.0}) for run in first.runs))
    assert "tokens" in annotators.spending([free, *methods[1:8]])[1]


def test_all_methods_look_different_up_to_thirty() -> None:
    styles = looks([f"method {number}" for number in range(30)]).values()
    assert len({(look["color"], look["marker"]) for look in styles}) == 30
