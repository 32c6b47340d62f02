"""Studies and sweeps: incompatible jobs are refused, failed ones named, done ones kept."""

import shutil
from pathlib import Path

from findistill.core.files import write_json
from findistill.methods.status.stage import describe
from tests.faults.conftest import Application, assert_nothing_half_written, states


def test_a_study_refuses_other_settings_and_other_folders(
    application: Application, teacher: tuple[str, ...], tmp_path: Path
) -> None:
    assert application(*teacher, "study=moon").code == 0
    before = (tmp_path / "runs/moon/study.json").read_bytes()
    other = (*teacher, "study=moon", "trainer.max_epochs=2")
    application(*other).is_mistake("study=moon", "trainer.max_epochs: 1 in the study, 2 in this command", "sweep.vary=")
    shutil.copy(tmp_path / "mine.csv", tmp_path / "other.csv")
    application(*teacher, "study=moon", "data.path=other.csv").is_mistake("data.path: 'mine.csv' in the study")
    shutil.copytree(tmp_path / "runs/moon", tmp_path / "runs/mars")
    application(*teacher, "study=mars", "seed=1").is_mistake("study=mars: runs/mars belongs to the study 'moon'")
    application("-m", *teacher, "study=mars", "seed=1,2").is_mistake("study=mars: runs/mars belongs to the study 'moon'")
    assert (tmp_path / "runs/moon/study.json").read_bytes() == before
    assert list(states(tmp_path / "runs").values()) == ["done", "done"]
    assert_nothing_half_written(tmp_path / "runs")
    again = application(*teacher, "study=moon")
    assert again.code == 0 and "already done" in again.errors


def test_a_failed_job_does_not_stop_the_others(application: Application, student: tuple[str, ...], tmp_path: Path) -> None:
    sweep = ("-m", *student, "study=moon", "distill.min_agreement=5,8,6")
    for _ in range(2):  # the same command reruns only the failed job
        outcome = application(*sweep)
        assert outcome.code == 1 and "Traceback" not in outcome.errors
        message = outcome.errors[outcome.errors.rindex("findistill: ") :]
        assert "1 of 3 jobs are not done" in message and "min_agreement=8" in message and "1 classes" in message
        assert sorted(states(tmp_path / "runs").values()) == ["done", "done", "failed"]
    assert "3 jobs: 2 already done, 1 to run" in outcome.errors
    assert_nothing_half_written(tmp_path / "runs")

    status = application("stage=status", "study=moon").output
    assert "3 jobs: 2 done, 1 failed" in status and "1 classes" in status
    assert status.splitlines()[-1].startswith("next: findistill -m stage=student ")
    assert status.endswith("study=moon distill.min_agreement=5,8,6\n")

    # A job killed after writing only its state does not prevent the report, which names what failed.
    (tmp_path / "runs/moon/student-cut-00000000").mkdir()
    write_json(tmp_path / "runs/moon/student-cut-00000000/status.json", {"state": "running", "error": None})
    report = application("stage=report", "study=moon", "report.baselines=[majority]", "report.resamples=20")
    assert report.code == 0, report.errors
    page = (tmp_path / "runs/moon/report.html").read_text()
    assert "student-cut-00000000" in page and "still running" in page and "keeps 15 of" in page


def test_a_sweep_can_stop_at_the_first_failure(application: Application, student: tuple[str, ...], tmp_path: Path) -> None:
    outcome = application("-m", *student, "distill.min_agreement=8,5", "sweep.on_error=stop")
    assert outcome.code == 1 and "2 of 2 jobs are not done" in outcome.errors and "not run" in outcome.errors
    assert list(states(tmp_path / "runs").values()) == ["failed"]
    assert "2 jobs: 1 failed, 1 to run" in describe(tmp_path / "runs" / "default")


def test_a_threshold_that_keeps_nothing_to_learn(application: Application, student: tuple[str, ...]) -> None:
    application(*student, "distill.min_agreement=8").is_mistake("distill.min_agreement=8 keeps", "Lower it")
