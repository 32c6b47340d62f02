"""Run folders: names, states, and what is written when a job succeeds or fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hydra import compose
from omegaconf import DictConfig

from findistill.config.groups import config_dir
from findistill.core import files, run_folder
from findistill.core import job as jobs
from findistill.core.files import read_json, replacing, synced_together, write_json, write_whole
from findistill.core.step import Step
from findistill.core.store import Store
from findistill.core.tracking import Attempt, Tracker
from findistill.errors import UserError
from findistill.hydra_ext import argv
from findistill.methods.stage import stage_of
from tests.fixtures.composing import shipped


def composed(*overrides: str) -> DictConfig:
    with shipped():
        chosen = [] if any(each.startswith("logger=") for each in overrides) else ["logger=none"]
        return compose("config", overrides=[*chosen, *overrides])


class Alone(Step):
    """A final step without parents."""

    name = "alone"


def running(root: Path, folder: Path):
    config = composed(f"runs_dir={root}")
    return jobs.running(config, Alone(config), folder)


STAGES = sorted(path.stem for path in (config_dir() / "stage").glob("*.yaml"))


def name(*overrides: str) -> Path:
    config = composed(*overrides)
    return run_folder.folder_of(config, stage_of(config), overrides)


def test_the_same_settings_mean_the_same_folder(tmp_path: Path) -> None:
    root = f"runs_dir={tmp_path}"
    first = name(root, "study=moon", "seed=1", "distill=reg")
    assert first == name(root, "study=moon", "distill=reg", "seed=1", "logger=csv")
    assert first.parent == tmp_path / "moon"
    assert first.name.startswith("student-reg-seed_1-")
    assert first != name(root, "study=moon", "distill=reg", "seed=2")


def test_a_known_job_is_found_by_its_settings_alone(tmp_path: Path) -> None:
    root = f"runs_dir={tmp_path}"
    first = name(root, "distill.min_agreement=6")
    first.mkdir(parents=True)
    assert name(root, "distill.min_agreement=6", "distill=cls") == first


def test_settings_a_stage_does_not_read_do_not_matter(tmp_path: Path) -> None:
    root = f"runs_dir={tmp_path}"
    assert name(root, "stage=teacher") == name(root, "stage=teacher", "student=bert_base")
    assert name(root, "stage=teacher") != name(root, "stage=teacher", "teacher=bert_base")


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "report"])
def test_every_stage_reads_sections_that_exist(stage: str) -> None:
    config = composed(f"stage={stage}")
    assert {name.partition(".")[0] for name in config.stage.reads} <= set(config)


def test_a_job_that_ends_well(tmp_path: Path) -> None:
    folder = tmp_path / "default" / "job"
    with running(tmp_path, folder) as job:
        assert run_folder.status(folder)["state"] == "running"
        job.metrics["test/accuracy"] = 0.5
    state = run_folder.status(folder)
    assert state["state"] == "done" and state["error"] is None and state["ended"] >= state["started"]
    metrics = read_json(folder / "metrics.json")
    assert metrics["test/accuracy"] == 0.5 and metrics["time/wall_s"] >= 0 and metrics["memory/peak_mb"] > 10
    assert [path.name for path in tmp_path.glob("default/.*")] == []


class Kind(Step):
    def __init__(self, name: str, number: int, **parents: Step) -> None:
        super().__init__(None)
        self.name, self.number, self.inputs = name, number, parents

    def settings(self) -> dict[str, Any]:
        return {"number": self.number}


def test_every_artifact_that_a_job_read_has_a_name_of_its_own(tmp_path: Path) -> None:
    """A report shows a job's texts only if the licences of all its data sets allow it."""
    data, also, further = (Kind("data", number) for number in range(3))
    teachers = {"teacher": Kind("teacher", 0, data=data), "teacher/embeddings": Kind("teacher", 1, pretraining=further)}
    step, store = Kind("student", 0, data=data, **{"also/0": also}, **teachers), Store(tmp_path)
    every = [data, also, further, *teachers.values()]
    for node in every:
        store.folder(node).mkdir()
    names = jobs.artifacts_read(step, store)
    assert {names["data"], names["data/1"]} == {store.folder(data).name, store.folder(also).name}
    assert {role: names[role] for role in teachers} == {role: store.folder(node).name for role, node in teachers.items()}
    assert sorted(names.values()) == sorted(store.folder(node).name for node in every)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("first line\nsecond line"), "first line"),
        (ValueError("bad"), "ValueError: bad"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_a_job_that_does_not(tmp_path: Path, error: BaseException, line: str) -> None:
    folder = tmp_path / "default" / "job"
    with pytest.raises(type(error)), running(tmp_path, folder):
        raise error
    assert run_folder.status(folder)["state"] == "failed" and run_folder.status(folder)["error"] == line
    assert not (folder / "metrics.json").exists()


def test_what_a_cut_run_left_is_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "default" / "job"
    (folder / "model").mkdir(parents=True)
    write_json(folder / "status.json", {"state": "running"})
    with running(tmp_path, folder):
        assert not (folder / "model").exists()


def test_a_job_runs_once_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "default" / "job"
    with running(tmp_path, folder):
        (folder / "kept").touch()
        with pytest.raises(UserError, match="another process is running"), running(tmp_path, folder):
            pass
        assert (folder / "kept").exists()


def test_passwords_in_addresses_are_hidden() -> None:
    config = composed("llm=endpoint", "llm.model=m", "llm.base_url=https://user:secret@host/v1")
    assert jobs.masked(config)["llm"]["base_url"] == "https://***@host/v1"


def test_files_are_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_whole(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and [each.name for each in path.parent.iterdir()] == ["file.txt"]


def test_the_tracker_sees_only_what_is_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = []

    @contextmanager
    def watching(config: dict[str, Any], folder: Path, loggers: Any, attempt: Attempt) -> Iterator[Tracker]:
        urls.append(config["llm"]["base_url"])
        yield Tracker(folder)

    monkeypatch.setattr(jobs, "track", watching)
    config = composed(f"runs_dir={tmp_path}", "llm=endpoint", "llm.model=m", "llm.base_url=https://user:secret@host/v1")
    with jobs.running(config, Alone(config), tmp_path / "default" / "job"):
        pass
    assert urls == ["https://***@host/v1"]


def test_a_name_can_be_typed_and_says_what_differs(tmp_path: Path) -> None:
    (tmp_path / "news.csv").write_text("text,sentiment\nProfit rose,positive\n")
    settings = ("data=csv", f"data.path={tmp_path}/news.csv", "data.label_column=sentiment", "trainer.max_epochs=1")
    folder = name(f"runs_dir={tmp_path}", "stage=teacher", "seed=3", *settings)
    assert folder.name.startswith("teacher-csv-seed_3-max_epochs_1-") and len(folder.name) <= run_folder.SLUG + 9


def test_the_latest_job_of_a_stage_has_a_link(tmp_path: Path) -> None:
    for job in ("teacher-a", "teacher-b"):
        (tmp_path / job).mkdir()
        write_json(tmp_path / job / "status.json", {"state": "done"})
        run_folder.link_latest(tmp_path / job, "teacher")
    (tmp_path / ".latest-teacher.123").symlink_to("teacher-a")  # left by a process killed while linking
    latest = tmp_path / "latest-teacher"
    assert latest.resolve() == tmp_path / "teacher-b"
    assert [path.name for path in run_folder.jobs(tmp_path)] == ["teacher-a", "teacher-b"]
    assert argv.without_links(f"evaluate.model=[{latest},x]") == f"evaluate.model=[{tmp_path}/teacher-b,x]"
    assert argv.without_links(f"evaluate.model={latest}/model") == f"evaluate.model={tmp_path}/teacher-b/model"


def test_a_jobs_files_are_flushed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(files, "sync", lambda path: flushed.append(path.name))
    with synced_together(tmp_path, but=("predictions",)):
        write_whole(tmp_path / "figures" / "one.png", "a")
        assert flushed == []
        write_whole(tmp_path / "predictions" / "shard", "a")  # must outlive a power cut before the end
        write_whole(tmp_path.with_name("elsewhere"), "a")
        assert len(flushed) == 4
    assert {"one.png", "figures", "shard", tmp_path.name} <= {*flushed[4:]}
    flushed.clear()
    with pytest.raises(RuntimeError), synced_together(tmp_path, but=()):
        write_whole(tmp_path / "half", "a")
        raise RuntimeError
    assert flushed == []  # the job has failed, and runs again
    write_whole(tmp_path / "later", "a")
    assert len(flushed) == 2
