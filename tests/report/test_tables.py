"""The table: one row per method, failed jobs listed, readable numbers."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from findistill.errors import UserError
from findistill.report import tables
from findistill.report.methods import Run, gather
from findistill.report.published import published
from findistill.report.tables import markdown, readable, results
from findistill.stats.intervals import seed_means


def test_one_row_a_method(runs: list[Run]) -> None:
    methods = gather(runs)
    estimates = [seed_means(method.gold, method.predicted, 3, resamples=100) for method in methods]
    failed = [{"job": "job-1", "method": "REG ≥8", "error": "x"}, {"job": "job-2", "method": "REG ≥7", "error": "y"}]
    table = results(methods, estimates, failed).set_index("method")
    assert list(table.index) == [*(method.name for method in methods), "REG ≥7"]
    row = table.loc["REG ≥8"]
    assert (row["n_seeds"], row["seeds"], row["failed_jobs"]) == (2, "0 1", "job-1")
    assert row["labels_used"] == pytest.approx(300) and row["labels_share"] == pytest.approx(0.3)
    assert row["other_set/accuracy"] == pytest.approx(0.55)
    assert row["other_set/accuracy_sd"] == pytest.approx(np.std([0.5, 0.6], ddof=1))
    assert table.loc["REG ≥7", "kind"] == "failed" and table.loc["REG ≥7", "n_seeds"] == 0
    assert table.loc["annotator (llm, 8 samples)", "coverage"] == pytest.approx(299 / 300)

    readable_table = readable(results(methods, estimates, failed)).set_index("Method")
    low, mean = row["accuracy_lo"], row["accuracy"]
    assert readable_table.loc["REG ≥8", "Accuracy"].startswith(f"{mean:.3f} ± {row['accuracy_sd']:.3f} [{low:.2f}, ")
    assert "±" not in readable_table.loc["annotator (llm, 8 samples)", "Accuracy"]
    assert readable_table.loc["REG ≥7", "Accuracy"] == ""
    assert readable_table.loc["REG ≥8", "Labels used"] == "300 (30%)"
    assert "Cost USD" not in readable_table


def test_markdown_cells_cannot_break_the_table(runs: list[Run]) -> None:
    methods = gather(runs[:1])
    estimates = [seed_means(method.gold, method.predicted, 3, resamples=10) for method in methods]
    readable_table = readable(results(methods, estimates, [{"job": "a|b", "method": "CLS ≥5"}]))
    lines = markdown(readable_table).splitlines()
    assert len(lines) == 3 and "a\\|b" in lines[2]


def test_published_numbers_have_sources_and_are_shares() -> None:
    for key in ("reddit_cls_vs_reg", "fingpt", "tinyfinbert"):
        study = published(key)
        assert study.rows and study.citation
        assert all(0 < value < 1 for row in study.rows for value in row.values.values())
        assert all(row.source.where for row in study.rows)
    reddit = published("reddit_cls_vs_reg")
    assert all(row.source.second_hand for row in reddit.rows)
    assert reddit.rows[1].cell("accuracy") == "0.50" and reddit.rows[5].cell("first score") == "0.842"


def test_unknown_published_key() -> None:
    with pytest.raises(UserError, match=r"report.published=nope.*\n?.*fingpt"):
        published("nope")


def test_published_file_is_package_data() -> None:
    import findistill.report.published as module

    assert Path(module.__file__).with_name("published.yaml").is_file()


def test_cells_that_a_spreadsheet_would_run_are_quoted() -> None:
    frame = pd.DataFrame({"=a": ["=1+1", "+x", "-y", "@z", "\tq", "plain"], "n": [-1.0, 2.0, 3.0, 4.0, 5.0, 6.0]})
    back = pd.read_csv(io.StringIO(tables.csv(frame)))
    assert list(back) == ["'=a", "n"] and back["'=a"].tolist() == ["'=1+1", "'+x", "'-y", "'@z", "'\tq", "plain"]
    assert back["n"].tolist() == [-1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("a|b", "a\\|b"),
        ("<img src=x onerror=y>", "&lt;img src=x onerror=y>"),
        ("[a](javascript:b)", "[a]\\(javascript:b)"),
        ("`x` *y*", "\\`x\\` \\*y\\*"),
        ("one\ntwo\r\tthree", "one two three"),
        ("&lt;b>", "&amp;lt;b>"),
        ("0.712 ± 0.004 [0.70, 0.73]", "0.712 ± 0.004 [0.70, 0.73]"),
        ("< 0.001 & >= 5, minilm_l6", "< 0.001 & >= 5, minilm_l6"),
    ],
)
def test_markdown_shows_cells_as_they_are(cell: str, expected: str) -> None:
    assert tables.markdown(pd.DataFrame({"Method": [cell]})).splitlines()[-1] == f"| {expected} |"


def test_a_label_called_macro_is_not_the_mean(new_run: Callable[..., Run]) -> None:
    run = new_run("m", "teacher", 0, skill=1.0, config={"seed": 0}, metrics={"test/macro/f1": 0.25, "test/micro/f1": 0.5})
    names = {"negative": "macro", "neutral": "micro", "positive": "rates"}
    frame = run.predictions.replace(names).rename(columns={f"p_{old}": f"p_{new}" for old, new in names.items()})
    [method] = gather([replace(run, predictions=frame)])
    estimates = seed_means(method.gold, method.predicted, 3, resamples=20)
    [row] = results([method], [estimates], []).to_dict("records")
    assert row["macro_f1"] == estimates["macro_f1"].mean and row["label_macro_f1"] == 0.25 and row["micro_f1"] == 0.5
