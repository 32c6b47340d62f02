"""Mistakes in the command: reported in one line, within a second, before anything is written or loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from findistill.hydra_ext import sweeper
from tests.conftest import Command
from tests.faults.conftest import Application, Outcome

MISTAKES = {
    "unknown setting": ("stag=student", "stag: no such setting. Did you mean stage?"),
    "misspelt key": ("distill.min_agrement=5", "distill.min_agrement: no such setting. Did you mean distill.min_agreement?"),
    "setting put in": ("+data.colour=1", "data.colour: no such setting"),
    "setting taken out": ("~seed", "seed was removed"),
    "unknown option": ("data=cvs", "data=cvs: no such option, did you mean csv?"),
    "unknown experiment": ("experiment=moon", "experiment=moon: no such option.\nAvailable: annotator_ablation"),
    "wrong type": ("trainer.max_epochs=many", "trainer.max_epochs=many: must be an integer"),
    "wrong type in a sweep": ("-m seed=0,x", "seed=x: must be an integer"),
    "value that cannot be read": ("trainer=[cpu", "trainer=[cpu: cannot be parsed"),
    "sweep without -m": ("seed=0,1", "seed=0,1: to sweep over values, use findistill -m"),
    "variable that is not set": (
        "data=csv data.path=${oc.env:NO_SUCH_FOLDER}/a.csv",
        "data.path names the environment variable NO_SUCH_FOLDER, which is not set: export NO_SUCH_FOLDER=",
    ),
    "unknown flag": ("--badflag", "--badflag: no such flag"),
    "two modes": ("-m --cfg job seed=0,1", "--multirun and --cfg cannot be combined"),
    "threshold above n": ("distill.min_agreement=9", "distill.min_agreement=9 can never be reached: annotate.samples=8"),
    "threshold above n in a sweep": ("-m distill.min_agreement=5,9", "(in the job distill.min_agreement=9)"),
    "missing file": ("stage=teacher data=csv data.path=no.csv data.label_column=y", "data.path=no.csv: no such file"),
    "missing folder": ("student=./nowhere", "student=./nowhere: no such folder"),
    "unknown demonstrations": ("shots.source=nowhere", "shots.source=nowhere: no such data set"),
    "unknown test set": ("evaluate.also=[nowhere]", "evaluate.also=nowhere: no such data set"),
    "unknown choice": ("sweep.on_error=perhaps", "sweep.on_error=perhaps: choose one of continue, stop"),
    "list needed": ("data.labels=3", "data.labels=3: must be a list: [a,b]"),
    "no data set": ("shots.source=3", "shots.source=3: must be a data set: a name"),
    "pickle": ("--experimental-rerun x.pkl", "--experimental-rerun reads a pickle, which can run code"),
    "another configuration": ("-cp /tmp", "--config-path would replace findistill's own configuration"),
    "code where none may stand": (
        "llm=gpt4o +llm.extra_body.x=[{_target_:os.system}]",
        "llm.extra_body.x.0._target_=os.system",
    ),
    "code of a library": (
        "llm._target_=torch.load",
        "torch.load is not allowed: the slot llm accepts",
    ),
    "jobs composed unseen": (
        "-m hydra/sweeper=basic experiment=demo,tinyfinbert",
        "experiment cannot be swept",
    ),
    "unknown study": ("stage=report study=nothing", "study=nothing: runs/nothing does not exist"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_a_line_and_leaves_nothing(name: str, application: Application, tmp_path: Path) -> None:
    command, words = MISTAKES[name]
    application(*command.split()).is_mistake(words)
    assert not any(tmp_path.iterdir())


def test_as_a_process_too_and_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was loaded')")
    for command, words in (MISTAKES["misspelt key"], MISTAKES["threshold above n"], MISTAKES["missing file"]):
        program = [sys.executable, "-m", "findistill", *command.split()]  # `-m` puts the working directory first on sys.path
        result = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        Outcome(result.returncode, result.stderr).is_mistake(words)
        assert result.stderr.startswith("findistill: ") and not result.stdout


def test_the_trace_is_there_for_who_asks(findistill: Command) -> None:
    result = findistill("distill.min_agreement=9", HYDRA_FULL_ERROR="1")
    assert result.returncode == 2 and "Traceback" in result.stderr


def test_flags_may_stand_behind_settings(application: Application) -> None:
    application("stage=teacher", "-m", "seed=0,x").is_mistake("seed=x: must be an integer")


def test_a_place_that_cannot_hold_the_output(application: Application, teacher: tuple[str, ...], tmp_path: Path) -> None:
    application(*teacher, "runs_dir=mine.csv").is_mistake("mine.csv", "Not a directory", "runs_dir=DIR")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


def test_long_planning_shows_how_far_it_is(
    application: Application, teacher: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "PROGRESS_S", 0.0)
    result = application("-m", *teacher, "plan=true", "seed=range(0,4)")
    assert result.code == 0 and "4 jobs: 0 done, 4 to run" in result.output
    assert [f"planning: {number} of 4 jobs composed and checked" in result.errors for number in range(5)] == [True] * 4 + [False]
