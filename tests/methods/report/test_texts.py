"""Texts in reports: shown only if the licence of every data set that a job read allows it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from findistill.core.store import Store
from findistill.methods.report.texts import may_be_shown, texts_to_show
from findistill.report.page import build_report
from findistill.report.runs import Entry
from tests.fixtures.studies import SECRET, student


@pytest.mark.parametrize("licence", [
    "MIT", "CC BY-NC-SA 3.0", "CC BY-NC 4.0", "cc-by-4.0", "CC0", "ODC PDDL 1.0", "the owner's", "the project's own",
    "Apache License 2.0", "public domain",
])  # fmt: skip
def test_open_licences(licence: str) -> None:
    assert may_be_shown(licence)


@pytest.mark.parametrize("licence", [
    "", "unknown", "not stated (StockTwits terms)", "2013 files ODC PDDL 1.0, others not stated; Reddit's terms apply",
    "mixed: benzinga listed as CC0, fnspid CC BY-NC 4.0, others not stated", "MIT for the code, texts not stated",
    "CC BY-NC-ND 4.0", "the provider's terms", "terms of the site",
])  # fmt: skip
def test_what_is_none(licence: str) -> None:
    assert not may_be_shown(licence)


@pytest.mark.parametrize(("further", "has_texts"), [("MIT", True), ("not stated", False)])
def test_a_page_has_texts_where_all_data_sets_of_a_job_allow_it(
    further: str, has_texts: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, licence in (("data-1", "CC BY 4.0"), ("data-2", further)):
        (tmp_path / ".artifacts" / name).mkdir(parents=True)
        (tmp_path / ".artifacts" / name / "card.json").write_text(json.dumps({"name": name, "licence": licence}))
    job = tmp_path / "s" / "job"
    job.mkdir(parents=True)
    (job / "artifacts.json").write_text(json.dumps({"data": "data-1", "data/1": "data-2", "teacher": "teacher-3"}))
    run = replace(student("cls", 5, 0, 1.0), folder=job)
    texts = texts_to_show([run], [Entry(job, {}, run.config, run)], Store(tmp_path / ".artifacts"))
    files = build_report("s", [run], [], tmp_path / "s", resamples=20, texts=texts)
    assert (SECRET in files.html.read_text()) == (SECRET in (tmp_path / "s" / "errors.csv").read_text()) == has_texts
    assert ("texts of data-2 are not shown; licence: not stated" in caplog.text) != has_texts
