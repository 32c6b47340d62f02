"""What launchers refuse, and what is sent to workers; without engines."""

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from findistill.config.groups import config_dir
from findistill.core import run_folder
from findistill.core.files import read_json, write_json
from findistill.core.search import PrunedError
from findistill.errors import UserError
from findistill.hydra_ext import launching, submitit
from findistill.hydra_ext.launching import DiedError, JobError, Workers, refuse_secrets
from findistill.hydra_ext.ray import forwarded
from findistill.hydra_ext.submitit import STOP, Process, Submitted
from findistill.hydra_ext.worker import Outcome, Task
from tests.faults.conftest import Application, application

assert application  # a fixture
LAUNCHERS = {"joblib": None, "ray": "ray", "submitit_local": "submitit", "submitit_slurm": "submitit"}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_preset_is_ours_whatever_else_is_installed(launcher: str) -> None:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        node = compose("config", [f"hydra/launcher={launcher}"], return_hydra_config=True).hydra.launcher
    assert node._target_.startswith("hydra_plugins.findistill_launchers.")


@pytest.mark.parametrize(("launcher", "extra"), [each for each in LAUNCHERS.items() if each[1]])
def test_what_is_not_installed_is_named(
    launcher: str, extra: str, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "find_spec", lambda name: None)
    outcome = application("-m", "seed=0,1", f"hydra/launcher={launcher}")
    outcome.is_mistake(f"hydra/launcher={launcher} needs {extra}", f"pip install 'findistill[{extra}]'")


def test_a_task_is_text_and_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never")
    task = Task("config", ("llm=gpt4o", "seed=1"), 0, "/somewhere")
    assert b"sk-never" not in pickle.dumps(task)
    refuse_secrets([task])
    with pytest.raises(UserError, match=r"base_url=https://\*\*\*@host: a key on the command line"):
        refuse_secrets([Task("config", ("llm.base_url=https://me:sk-never@host",), 0, "/")])
    assert forwarded({"OPENAI_API_KEY": "k", "HF_HOME": "h", "PATH": "p"}) == {"OPENAI_API_KEY": "k", "HF_HOME": "h"}


class Ends(Workers):
    """Ends its tasks with the given outcomes, one after the other."""

    def __init__(self, *ends: Outcome) -> None:
        self.ends = ends
        master = {"sweep": {"on_error": "stop"}, "hydra": {"job": {"config_name": "config"}, "overrides": {"hydra": []}}}
        self.config = OmegaConf.create(master)

    def outcomes(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        for task, outcome in zip(tasks, self.ends, strict=True):
            if not self.stopping:
                yield task.number, outcome


def test_what_jobs_end_with_reaches_the_sweeper() -> None:
    ends = (Outcome(0.5), Outcome(error="behind", pruned=True), Outcome(error="killed", died=True), Outcome(0.7))
    returned = Ends(*ends).launch([[f"seed={n}"] for n in range(4)], 10)
    values = [each._return_value for each in returned]
    assert values[0] == 0.5 and [type(value) for value in values[1:]] == [PrunedError, DiedError, JobError]
    assert "not run" in str(values[3]), "on_error=stop"


def test_a_death_is_noted_unless_the_job_runs_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "moon" / "job"
    write_json(folder / "status.json", {"state": "running", "key": "k"})
    with run_folder.lock_of(folder):
        run_folder.note_death(folder, "k", "killed")
        assert run_folder.status(folder)["state"] == "running"
    run_folder.note_death(folder, "k", "killed")
    assert read_json(folder / "status.json") == {"state": "failed", "key": "k", "error": "killed"}
    write_json(folder / "status.json", {"state": "done"})
    run_folder.note_death(folder, "k", "killed")
    assert run_folder.status(folder) == {"state": "done"}


TASKS = [Task("config", (f"seed={number}",), number, "/") for number in range(3)]
FAILED = Outcome(error="too few rows")


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> dict[int, Outcome]:
    """How each task of a submission ends: number -> outcome."""
    ends = {task.number: Outcome(task.number / 2) for task in TASKS}
    monkeypatch.setattr(submitit, "run", lambda task, trace: ends[task.number])
    return ends


@pytest.mark.parametrize("stop", [False, True])
def test_a_process_runs_its_jobs_one_after_the_other(stop: bool, outcomes: dict[int, Outcome], tmp_path: Path) -> None:
    outcomes[1] = FAILED
    file = tmp_path / "0.jsonl"
    process = Process(None, file, {task.number: task for task in TASKS})
    assert [*process.new_outcomes()] == []
    Submitted(TASKS, file, stop)()
    assert [*process.new_outcomes()] == [(0, Outcome(0.0)), (1, FAILED), *([] if stop else [(2, Outcome(1.0))])]
    assert [*process.new_outcomes()] == [], "each once"
    assert [*process.pending] == ([2] if stop else [])
    assert (tmp_path / STOP).exists() == stop, "other processes stop, too"
    other = tmp_path / "3.jsonl"
    Submitted(TASKS, other, stop)()
    assert other.exists() != stop


def test_a_line_that_is_being_written_is_read_later(tmp_path: Path) -> None:
    file = tmp_path / "0.jsonl"
    process = Process(None, file, {task.number: task for task in TASKS})
    line = '{"number": 0, "value": 0.5, "error": null, "died": false, "pruned": false}'
    file.write_text(line[:30])
    assert [*process.new_outcomes()] == []
    file.write_text(f"{line}\n")
    assert [*process.new_outcomes()] == [(0, Outcome(0.5))]
