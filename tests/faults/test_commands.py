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
    "setting of the chosen option": ("data=csv data.colum=1", "data.colum: no such setting. Did you mean data.columns?"),
    "setting of other options": ("data.path=a.csv", "data.path: no such setting. These have it: data=conll, csv, excel"),
    "list instead of a sweep": ("seed=[0,1]", "seed=[0,1]: must be an integer; to sweep over values: findistill -m seed=0,1"),
    "value for a section": ("evaluate=3", "evaluate=3: 3 is not a section"),
    "section of Hydra": ("hydra.sweper.x=3", "hydra.sweper: no such setting. Did you mean hydra.sweeper?"),
    "setting that exists put in": ("+seed=1", "seed is a setting already: write seed=1"),
    "option put in": ("+data=csv", "data has an option already: write data=OPTION"),
    "option taken out that is not chosen": ("~data=csv", "~data=csv: it is not chosen"),
    "setting inside a value": ("data.name.x=3", "data.name.x=3: data.name is a single value"),
    "setting inside a list": ("data.labels.x=3", "data.labels.x=3: no such item; a list can be set as a whole: data.labels=["),
    "number as option": ("data=3", "data=3: no such option.\nAvailable: conll, csv"),
    "number as option of Hydra": ("hydra/sweeper=3", "hydra/sweeper=3: no such option.\nAvailable: basic"),
    "number as option in a sweep": ("-m data=1,2", "data=1: no such option.\nAvailable: conll, csv"),
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
    "threshold above the votes of an ensemble": (
        "distill.min_agreement=4 annotate.ensemble=[{llm:tfidf,annotate:{samples:1}},{llm:embeddings,annotate:{samples:2}}]",
        "distill.min_agreement=4 can never be reached: the 2 annotators of annotate.ensemble have 3 votes in all. Use at most 3",
    ),
    "member that always answers the same": (
        "stage=annotate annotate.ensemble=['prompt=cot','annotate.temperature=0']",
        "annotate.ensemble[1]: annotate.temperature=0 makes all 8 samples identical",
    ),
    "member measured on what it was trained on": (
        "stage=annotate data.labelled=50 annotate.combine=stacking shots.k=0 annotate.ensemble=['llm.adapter=tune','llm=tfidf']",
        "annotate.ensemble[0]: llm.adapter=tune trains on the labelled rows, on which annotate.combine=stacking compares",
    ),
    "members measured on different rows": (
        "stage=annotate annotate.combine=weighted_majority annotate.ensemble=['shots.source=tfns','llm=tfidf']",
        "annotate.combine=weighted_majority compares annotators on the same labelled rows, and members have different",
    ),
    "choice among seeds": (
        "-m experiment=best_student seed=0,1",
        "sweep.choose compares settings, and seed only repeats them: repeat the best one with sweep.then",
    ),
    "missing file": ("stage=teacher data=csv data.path=no.csv data.label_column=y", "data.path=no.csv: no such file"),
    "missing folder": ("student=./nowhere", "student=./nowhere: no such folder"),
    "unknown demonstrations": ("shots.source=nowhere", "shots.source=nowhere: no such data set"),
    "unknown test set": ("evaluate.also=[nowhere]", "evaluate.also=nowhere: no such data set"),
    "unknown setting of a test set": (
        "evaluate.also=[{name:fiqa_news,clases:2}]",
        "evaluate.also: data.clases: no such setting. Did you mean data.classes?",
    ),
    "unknown setting of an annotator": (
        "stage=annotate annotate.ensemble=['llm.modl=x','prompt=cot']",
        "annotate.ensemble: llm.modl: no such setting. Did you mean llm.model?",
    ),
    "annotator that cannot be read": (
        "stage=annotate annotate.ensemble=['llm.model=[x','prompt=cot']",
        "annotate.ensemble: llm.model=[x: cannot be parsed",
    ),
    "wrong type in an annotator": (
        "stage=annotate annotate.ensemble=['annotate.samples=many','prompt=cot']",
        "annotate.ensemble: annotate.samples: must be an integer",
    ),
    "unknown setting in a job": (
        "-m stage=teacher data=demo,csv data.path=a.csv",
        "(in the job stage=teacher data=demo data.path=a.csv)",
    ),
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


GLOBAL = "# @package _global_\n"
# A conf folder's file, its content, the command, and what is said about it.
FILES = {
    "unknown setting": (
        "experiment/mine.yaml", f"{GLOBAL}data: {{colour: 1}}", "experiment=mine",
        "experiment/mine: data.colour: no such setting. data has: name, labels",
    ),
    "wrong type": (
        "experiment/mine.yaml", f"{GLOBAL}trainer: {{max_epochs: many}}", "experiment=mine",
        "experiment/mine: trainer.max_epochs: must be an integer",
    ),
    "invalid YAML": ("experiment/mine.yaml", f"{GLOBAL}trainer: [", "experiment=mine", "mine.yaml: line 2: invalid YAML"),
    "unknown option": (
        "experiment/mine.yaml", f"{GLOBAL}defaults: [override /data: tfms]", "experiment=mine",
        "data=tfms: no such option, did you mean tfns?",
    ),
    "option as a value": (
        "experiment/mine.yaml", f"{GLOBAL}data: csv", "experiment=mine",
        "experiment/mine: csv is not a section; options are chosen in the defaults list",
    ),
    "no package": ("experiment/mine.yaml", "seed: 3", "experiment=mine", "begin the file with # @package _global_"),
    "empty": ("experiment/mine.yaml", "", "experiment=mine", "begin the file with # @package _global_"),
    "list": ("experiment/mine.yaml", f"{GLOBAL}- a", "experiment=mine", "experiment/mine: must be a mapping of settings"),
    "defaults that are no list": (
        "experiment/mine.yaml", f"{GLOBAL}defaults: 3", "experiment=mine", "'experiment/mine', defaults must be a list (got int)",
    ),
    "swept settings in a list": (
        "experiment/mine.yaml", f"{GLOBAL}hydra: {{sweeper: {{params: [seed]}}}}", "-m experiment=mine",
        "hydra.sweeper.params must be a mapping",
    ),
    "swept values in a list": (
        "experiment/mine.yaml", f"{GLOBAL}hydra: {{sweeper: {{params: {{seed: [0, 1]}}}}}}", "-m experiment=mine",
        "seed=[0,1]: must be an integer; to sweep over values: findistill -m seed=0,1",
    ),
    "misspelt setting of an option": (
        "data/mine.yaml", "defaults: [csv, _self_]\npth: a.csv", "data=mine",
        "data/mine: data.pth: no such setting. Did you mean data.path?",
    ),
    "option that inherits nothing": (
        "data/mine.yaml", "path: a.csv", "data=mine", "data/mine: data.path: no such setting. These have it: data=conll, csv",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_mistake_in_a_file_is_told_in_a_line(
    name: str, application: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, content, command, words = FILES[name]
    (tmp_path / "conf" / file).parent.mkdir(parents=True)
    (tmp_path / "conf" / file).write_text(content)
    monkeypatch.setenv("FINDISTILL_CONF", str(tmp_path / "conf"))
    application(*command.split()).is_mistake(words)


def test_a_null_takes_a_setting_out_of_an_experiments_sweep(application: Application) -> None:
    result = application(
        "-m", "experiment=demo", "hydra.sweeper.params.distill=null", "sweep.choose=null", "plan=true", "seed=0,1"
    )
    assert result.code == 0 and "2 jobs: 0 done, 2 to run" in result.output, result.output + result.errors


def test_a_setting_that_only_swept_options_have(application: Application, tmp_path: Path) -> None:
    (tmp_path / "rows").write_text('{"text": "up", "label": "good"}\n{"text": "down", "label": "bad"}\n')
    result = application("-m", "stage=teacher", "data=csv,jsonl", "data.path=rows", "data.label_column=label", "plan=true")
    assert result.code == 0, result.errors
    assert "2 jobs: 0 done, 2 to run" in result.output


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
