"""`report.compare`: methods of one study against those of another, on the same rows, p adjusted over all pairs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from findistill.errors import UserError
from findistill.methods.report import across
from findistill.report.methods import Run, gather
from findistill.report.page import build_report


def of_studies(new_student: Callable[..., Run], n_second: int = 300) -> list[Run]:
    """Students with the same name and configuration in two studies."""
    runs = [new_student("cls", 5, seed, 1.0) for seed in (0, 1)] + [new_student("reg", 5, 0, 2.0)]
    second = [new_student("cls", 5, seed, 3.0, n=n_second) for seed in (0, 1)]
    placed = [(run, "moon") for run in runs] + [(run, "mars") for run in second]
    return across.named_by_study([replace(run, status={**run.status, "study": study}) for run, study in placed])


def test_every_pair_of_two_studies_is_tested_and_adjusted_together(
    new_student: Callable[..., Run], new_run: Callable[..., Run], tmp_path: Path
) -> None:
    baseline = new_run("majority class", "baseline", None, skill=0.0, config={"data": {"name": "made_up"}})
    runs = [*of_studies(new_student), baseline]
    files = build_report("both", runs, [], tmp_path, resamples=50, families=across.families)
    table = pd.read_csv(files.comparisons_csv)
    assert {(row.a, row.b) for row in table.itertuples()} == {
        ("CLS ≥5 [moon]", "CLS ≥5 [mars]"), ("REG ≥5 [moon]", "CLS ≥5 [mars]"),
    }  # fmt: skip
    assert set(table["family"]) == {"moon against mars"} and (table["p_holm"] >= table["p"]).all()
    assert table["p_holm"].max() > table["p"].min()
    assert "REG ≥5 [moon] against CLS ≥5 [mars], moon against mars" in files.html.read_text()


def test_studies_without_a_common_test_row_are_refused_in_a_line(new_student: Callable[..., Run]) -> None:
    with pytest.raises(UserError, match=r"moon: 300 rows of made_up; mars: 200 rows of made_up #2"):
        across.check_common_rows(gather(of_studies(new_student, n_second=200)))
    across.check_common_rows(gather(of_studies(new_student)))


def test_the_studies_exist_and_a_report_is_not_written_over_another(tmp_path: Path) -> None:
    for study in ("moon", "mars"):
        (tmp_path / study / "job").mkdir(parents=True)
        (tmp_path / study / "job" / "status.json").write_text("{}")
        (tmp_path / study / "study.json").write_text("{}")
    assert across.folders_of(tmp_path, "both", ["moon", "mars"]) == [tmp_path / "moon", tmp_path / "mars"]
    assert across.folders_of(tmp_path, "moon", []) == [tmp_path / "moon"]
    with pytest.raises(UserError, match=r"study=moon has its own jobs .*\n.* study=moon_and_mars"):
        across.folders_of(tmp_path, "moon", ["moon", "mars"])
    with pytest.raises(UserError, match=r"study=venus: .* does not exist; studies in .*: mars, moon"):
        across.folders_of(tmp_path, "both", ["moon", "venus"])
    with pytest.raises(UserError, match="name two or more studies"):
        across.folders_of(tmp_path, "both", ["moon", "moon"])
