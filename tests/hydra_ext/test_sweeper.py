"""Sweeps with a launcher that runs jobs in parallel, and the reported cost of a sweep."""

import logging
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from findistill.core.files import write_json, write_whole
from findistill.core.hashing import seal
from findistill.core.plan import duration
from findistill.core.run_folder import REPORT, done_jobs
from findistill.errors import SweepError
from findistill.hydra_ext.sweeper import Job, Plan, ResumingSweeper, costs
from tests.conftest import Command
from tests.fixtures.composing import composed


def test_costs_count_shared_artifacts_once(tmp_path: Path) -> None:
    folders = []
    for number, seconds in enumerate((100.0, 0.0)):
        folder = tmp_path / str(number)
        shared = {"time/annotate_s": 100.0, "time/data_s": 1.0, "time/artifacts_s": 101.0}
        write_json(folder / "metrics.json", {"time/wall_s": 10 + seconds, "time/artifacts_made_s": seconds, **shared})
        folders.append(folder)
    text = costs(folders, 121)
    assert text.startswith("2 jobs in 2 min 1 s: artifacts, created once, took 1 min 40 s; the jobs themselves took 20.0 s.")
    assert text.endswith("it would have been 3 min 42 s.")  # 20 + 2 x 101


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (99.9, "99.9 s"), (100, "1 min 40 s"), (3600, "60 min 0 s")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("n_done", "line"), [(2, "nothing to do: every job is done. Report: "), (1, "the report is current: ")])
def test_a_current_report_does_not_hide_missing_jobs(
    n_done: int, line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config: Any = SimpleNamespace(sweep=SimpleNamespace(report=True))
    jobs = [Job([], [], tmp_path / f"teacher-{number}", "key", live=False, reads=[], settings={}) for number in range(2)]
    for job in jobs[:n_done]:
        write_json(job.folder / "status.json", {"state": "done"})
    page = write_whole(tmp_path / "report.html", "a report")
    write_json(tmp_path / REPORT, {"jobs": done_jobs(tmp_path), "files": seal(tmp_path, [page.name])})
    caplog.set_level(logging.INFO, "findistill")
    with nullcontext() if n_done == 2 else pytest.raises(SweepError, match="1 of 2 jobs are not done"):
        ResumingSweeper._close(Plan(jobs, {tmp_path: config}), jobs[n_done:], 1.0, last=False)
    assert caplog.messages == [f"{line}{page}"]


def test_the_next_commands_of_a_sweep_are_for_its_best_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = composed("stage=student", "study=moon", f"runs_dir={tmp_path}")
    folders = [tmp_path / "moon" / f"student-{number}" for number in range(3)]
    jobs = [
        Job([f"seed={number}"], [], folder, "key", live=False, reads=[], settings={}) for number, folder in enumerate(folders)
    ]
    for folder in folders:
        write_json(folder / "status.json", {"state": "done"})
    page = write_whole(tmp_path / "moon" / "report.html", "a report")
    record = {"jobs": done_jobs(page.parent), "best": "student-1", "files": seal(page.parent, [page.name])}
    write_json(page.with_name(REPORT), record)
    caplog.set_level(logging.INFO, "findistill")
    ResumingSweeper._close(Plan(jobs, {page.parent: config}), [], 1.0, last=True)
    assert caplog.messages[-1] == f"next: findistill stage=export evaluate.model={folders[1]} seed=1"
    config = composed("stage=teacher", "study=moon", f"runs_dir={tmp_path}")  # the best job is of another stage than the last
    ResumingSweeper._close(Plan(jobs, {page.parent: config}), [], 1.0, last=True)
    assert caplog.messages[-1] == "next: findistill stage=student distill=logit seed=2"


@pytest.mark.slow
def test_jobs_run_side_by_side_and_share_artifacts(findistill: Command, tmp_path: Path) -> None:
    result = findistill(
        "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "study=moon", "stage=teacher", "seed=0,1", "data.labelled=60",
        "trainer.max_epochs=1", "logger=none", "evaluate.resamples=20", "evaluate.latency=false", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert len(list((tmp_path / "runs" / "moon").glob("teacher-*/predictions.parquet"))) == 2
    assert len([path for path in (tmp_path / "runs" / ".artifacts").glob("data-*") if path.is_dir()]) == 1
    assert (tmp_path / "runs" / "moon" / "report.html").exists()
