"""The table of jobs: scores, changes from the job above, and the command."""

from pathlib import Path

from findistill.report.jobs import as_text, jobs_table
from findistill.report.methods import Run, gather
from findistill.report.runs import Entry
from tests.fixtures.studies import student


def entry(folder: Path, run: Run | None, config: dict, **status: object) -> Entry:
    folder.mkdir(parents=True)
    (folder / "command.txt").write_text(f"findistill study=s seed={config.get('seed')}\n")
    return Entry(folder, {"state": "done", **status}, config, run)


def test_jobs_stand_by_method_with_what_changed(tmp_path: Path) -> None:
    runs = [
        Run(**{**vars(student(objective, 5, seed, 1.0)), "folder": tmp_path / "s" / f"{objective}-{seed}"})
        for seed in (0, 1)
        for objective in ("cls", "reg")
    ]
    entries = [entry(run.folder, run, run.config, git_commit="0" * 40 + "-dirty") for run in runs if run.folder]
    stage = {"name": "student", "reads": ["seed"]}
    entries.append(entry(tmp_path / "s" / "cut", None, {"seed": 7, "stage": stage}, state="failed", error="no memory"))
    methods = gather(runs)
    table = jobs_table(entries, methods)
    assert table["job"].tolist() == ["s/cls-0", "s/cls-1", "s/reg-0", "s/reg-1", "s/cut"]
    assert table["changed"].tolist()[:3] == ["", "seed: 0 → 1", "seed: 1 → 0; distill.objective: cls → reg"]
    assert "stage: none → student" in table["changed"].iloc[4] and "reads" not in table["changed"].iloc[4]
    assert table["command"].tolist()[1] == "findistill study=s seed=1"
    assert table["accuracy"].iloc[1] == methods[0].correct[1].mean()
    page = as_text(table)
    assert page["State"].iloc[-1] == "failed: no memory" and page["Commit"].iloc[0] == "00000000-dirty"
    assert "W&B" not in page and "Test set" in page  # the failed job has none
    assert "Test set" not in as_text(table.iloc[:4])


def test_a_link_is_one(tmp_path: Path) -> None:
    links = ["https://wandb.ai/me/p/runs/1", "javascript:alert(1)"]
    entries = [
        entry(tmp_path / "s" / str(at), None, {}, wandb={"id": "x", "url": link, "complete": True})
        for at, link in enumerate(links)
    ]
    assert as_text(jobs_table(entries, []))["W&B"].tolist() == [links[0], ""]
