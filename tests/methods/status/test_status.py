"""`stage=status`: every job state, the remaining work and its cost, and commands that can be pasted."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from findistill.config.groups import option_file
from findistill.core import run_folder, study
from findistill.core.files import write_json
from findistill.errors import UserError
from findistill.methods.status import overview
from findistill.methods.status.jobs import study_jobs
from findistill.methods.status.stage import ROWS, describe
from tests.conftest import Command

COMMAND = ["-m", "study=moon", "distill=cls,reg", "seed=0,1,2"]


def begin(folder: Path, state: str, **status: Any) -> Path:
    """Write the folder of a job; if it ended, it took half an hour."""
    folder.mkdir(parents=True)
    times = {"started": "2026-11-28T10:00:00+00:00", "ended": None if state == "running" else "2026-11-28T10:30:00+00:00"}
    write_json(folder / "status.json", {"state": state, **times, "host": "gpu03", "error": None, **status})
    if state == "done":
        write_json(folder / "metrics.json", {"time/wall_s": 60.0, "cost/usd": 0.25})
    return folder


@pytest.fixture
def moon(tmp_path: Path) -> Path:
    """Two jobs done, one interrupted, one failed, one pruned, two never started."""
    folder = tmp_path / "runs" / "moon"
    begin(folder / "student-cls-0", "done")
    begin(folder / "student-reg-0", "done")
    begin(folder / "student-cls-1", "running")
    begin(folder / "student-reg-1", "failed", error="distill.min_agreement=8 keeps 15 of 20 texts")
    begin(folder / "student-cls-3", "pruned", error="pruned at epoch 2: 0.4 is behind earlier trials")
    study.note_command(folder, COMMAND, jobs=[f"student-{way}-{seed}" for way in ("cls", "reg") for seed in (0, 1, 2)])
    return folder


def rows(folder: Path) -> dict[str, tuple[str, ...]]:
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in describe(folder).splitlines()]
    return {name: tuple(rest) for name, *rest in cells}


def test_every_state_has_its_row(moon: Path) -> None:
    table = rows(moon)
    assert table["student"] == ("done", "2", "took 2 min 0 s, $0.5000 in total")
    assert table["student-cls-1"][0] == "interrupted" and table["student-cls-1"][2].endswith("on gpu03, its process is gone")
    assert table["student-reg-1"] == ("failed", "1", "after 30 min 0 s: distill.min_agreement=8 keeps 15 of 20 texts")
    assert table["student-cls-3"][:2] == ("pruned", "1") and "behind earlier trials" in table["student-cls-3"][2]
    assert table["student-cls-2"] == ("to run", "1", "about 60.0 s, $0.2500 (median of 2 run so far)")
    counts = "7 jobs: 2 done, 1 pruned, 1 interrupted, 1 failed, 2 to run; remaining: about 4 min 0 s and $1.0000 one after"
    assert any(name.startswith(counts) for name in table), table
    assert list(table)[-1] == "next: findistill -m study=moon distill=cls,reg seed=0,1,2"


def test_a_job_whose_lock_is_taken_runs_and_says_how_far_it_is(moon: Path) -> None:
    (moon / "student-cls-1" / run_folder.PROGRESS).write_text("training: 120 of 600 batches (20%)\n")
    assert rows(moon)["student-cls-1"][0] == "interrupted"
    lock = run_folder.lock_of(moon / "student-cls-1")
    Path(lock.lock_file).parent.mkdir(exist_ok=True)
    with lock:
        state, _, words = rows(moon)["student-cls-1"]
        assert state == "running" and words.startswith("since 2026-11-28 ") and "on gpu03 (" in words
        assert words.endswith("; training: 120 of 600 batches (20%)")
    assert rows(moon)["student-cls-1"][0] == "interrupted"


def test_where_a_lock_cannot_be_tried_a_job_is_what_it_says(moon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Path(run_folder.lock_of(moon / "student-cls-1").lock_file)
    lock.mkdir(parents=True)  # like another user's file, it cannot be opened
    assert rows(moon)["student-cls-1"][0] == "running"


def test_a_status_that_is_half_written_is_a_job_that_was_cut(moon: Path) -> None:
    (moon / "student-reg-1" / "status.json").write_text('{"state": "don')
    assert rows(moon)["student-reg-1"] == ("interrupted", "1", "since an unknown time, its process is gone")


def test_nothing_is_said_of_what_a_stage_costs_that_was_never_run(moon: Path) -> None:
    study.note_command(moon, ["-m", "study=moon", "stage=teacher", "seed=0,1"], jobs=["teacher-0", "teacher-1"])
    table = rows(moon)
    assert table["teacher-0"] == ("to run", "1", "unknown: none run yet")
    assert not any("one after the other" in name for name in table)
    assert list(table)[-2:] == [
        "next: findistill -m study=moon distill=cls,reg seed=0,1,2", "findistill -m study=moon stage=teacher seed=0,1",
    ]  # fmt: skip


def test_the_same_command_with_other_data_has_other_jobs(moon: Path) -> None:
    study.note_command(moon, COMMAND, jobs=["student-cls-0", "student-new-0"])
    assert {job.folder.name for job in study_jobs(moon) if job.state == "to run"} == {"student-new-0"}


def test_many_jobs_that_are_left_are_counted(tmp_path: Path) -> None:
    study.note_command(tmp_path / "mars", ["-m", "study=mars"], jobs=[f"teacher-{seed}" for seed in range(ROWS + 30)])
    table = rows(tmp_path / "mars")
    assert table["... and 30 more"] == ("to run", "30") and f"{ROWS + 30} jobs: {ROWS + 30} to run" in table


def test_a_search_has_trials_to_begin(tmp_path: Path) -> None:
    begin(tmp_path / "search" / "teacher-0", "done")
    study.note_command(tmp_path / "search", ["-m", "study=search", "hydra/sweeper=optuna"], trials=20)
    lines = describe(tmp_path / "search").splitlines()
    assert "1 jobs: 1 done, up to 19 trials to start" in lines[-2]
    assert lines[-1] == "next: findistill -m study=search hydra/sweeper=optuna"


def test_when_all_is_done_the_report_is_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begin(Path("runs/moon/teacher-0"), "done")
    assert describe(Path("runs/moon")).endswith("\nnext: findistill stage=report study=moon\n")
    begin(Path("my runs/moon/teacher-0"), "done")
    command = describe(Path("my runs/moon")).splitlines()[-1]
    assert shlex.split(command)[-2:] == ["study=moon", "runs_dir=my runs"]


def test_a_job_of_no_sweep_goes_on_by_its_own_command(tmp_path: Path) -> None:
    folder = begin(tmp_path / "moon" / "teacher-0", "failed")
    assert describe(tmp_path / "moon").splitlines()[-1].startswith("next: run the commands that started these jobs again")
    (folder / "command.txt").write_text("findistill stage=teacher study=moon\n")
    assert describe(tmp_path / "moon").splitlines()[-1] == "next: findistill stage=teacher study=moon"


def test_a_key_is_not_printed_and_is_asked_for(moon: Path) -> None:
    study.note_command(moon, ["-m", "study=moon", "llm.api_key=secret-1"], jobs=["student-x"])
    assert "secret-1" not in describe(moon) and "(*** is a key" in describe(moon)


def test_the_newest_file_of_the_workers_is_named(moon: Path) -> None:
    for number, name in enumerate(("41_0_log.err", "42_0_log.err")):
        path = moon.parent / ".workers" / "moon" / name[:2] / name
        path.parent.mkdir(parents=True)
        path.write_text(str(number))
    assert ", newest: " in describe(moon) and "submitted.pkl" not in describe(moon)


def test_studies_are_listed_with_what_they_are_about(moon: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(moon.parent / "tweets" / "teacher-0", "done", ended="2026-11-29T10:00:00+00:00")
    study.note_command(moon.parent / "tweets", ["-m", "experiment=reddit_cls_vs_reg"])
    (moon.parent / ".artifacts").mkdir()
    overview.show(moon.parent, "status")
    header, first, second, *last = capsys.readouterr().out.splitlines()
    assert header.split() == ["study", "done", "running", "failed", "left", "newest", "report", "about"]
    assert first.split()[:5] == ["moon", "2", "0", "1", "4"] and "distill=cls,reg" in first
    assert second.split()[:5] == ["tweets", "1", "0", "0", "0"] and " none " in second
    assert "reddit_cls_vs_reg: CLS against REG" in second and option_file("experiment", "reddit_cls_vs_reg")
    assert last[0].startswith("next: findistill stage=status study=tweets")


def test_the_report_of_no_study_is_a_mistake_that_shows_which_there_are(moon: Path, findistill: Command, tmp_path: Path) -> None:
    """Exit code 2: no report was written, which a script that opens it next has to know."""
    result = findistill("stage=report")
    assert result.returncode == 2 and result.stdout.splitlines()[1].startswith("moon ")
    assert result.stderr.strip().endswith("none is named; for the newest: findistill stage=report study=moon")
    status = findistill("stage=status")
    assert status.returncode == 0 and status.stdout.splitlines()[:2] == result.stdout.splitlines()[:2]
    of_one = findistill("stage=status", "study=moon")
    assert of_one.returncode == 0 and of_one.stdout == describe(moon).replace(f"{tmp_path}/", "").replace(" runs_dir=runs", "")


def test_studies_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no studies yet"):
        overview.show(tmp_path / "runs", "status")
    begin(tmp_path / "runs" / "moon" / "teacher-0", "done")
    with pytest.raises(UserError, match=r"study=mooon: .* does not exist \(did you mean moon\?\); studies in .*: moon$"):
        study.existing(tmp_path / "runs", "mooon")
