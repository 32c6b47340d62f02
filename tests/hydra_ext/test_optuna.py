"""An interrupted search is resumed by the same command; its trials are ordinary jobs."""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from findistill.hydra_ext.optuna import DIED, judge, requeue_cut_trials
from tests.faults.conftest import Application, application, outcome_of, start, states, teacher, tiny, wait_for
from tests.launchers.conftest import workers

assert application and start and teacher and tiny  # fixtures

RATE = "trainer.learning_rate"
SEARCH = ("-m", "hydra/sweeper=optuna", "study=search", "trainer.learning_rate=interval(1e-4,1e-2)", "report.resamples=10")


def stored(root: Path) -> optuna.Study:
    return optuna.load_study(study_name="search", storage=f"sqlite:///{root}/runs/search/optuna.sqlite")


def trials(root: Path) -> list[optuna.trial.FrozenTrial]:
    return stored(root).get_trials(states=[TrialState.COMPLETE])


@pytest.mark.slow
def test_a_search_of_four_trials_is_cut_and_continued(application: Application, teacher: tuple[str, ...], tmp_path: Path) -> None:
    command = (*SEARCH, *(word for word in teacher if word != "sweep.report=false"), "hydra.sweeper.sampler.seed=0")
    first = application(*command, "hydra.sweeper.n_trials=2")
    assert first.code == 0 and "2 trials: 0 already done, 2 to run" in first.errors, first.errors
    values = {trial.number: trial.value for trial in trials(tmp_path)}
    assert len(values) == 2
    running = stored(tmp_path).ask()  # as left by a killed process
    running.suggest_float("trainer.learning_rate", 1e-4, 1e-2)
    again = application(*command, "hydra.sweeper.n_trials=4")
    assert again.code == 0 and "4 trials: 2 already done, 2 to run" in again.errors, again.errors
    complete = trials(tmp_path)
    assert len(complete) == 4 and {trial.number: trial.value for trial in complete}.items() >= values.items()
    rates = [trial.params["trainer.learning_rate"] for trial in complete]
    assert running.params["trainer.learning_rate"] in rates, "the cut trial was tried again with its own values"
    scores = [json.loads(path.read_text())["val/macro_f1"] for path in tmp_path.glob("runs/search/teacher*/metrics.json")]
    assert sorted(scores) == sorted(trial.value for trial in complete)
    assert "best of" in again.errors and (tmp_path / "runs" / "search" / "report.html").exists()
    third = application(*command, "hydra.sweeper.n_trials=4")
    assert third.code == 0 and "4 trials: 4 already done, 0 to run" in third.errors


def test_what_cannot_be_searched_is_told(application: Application, teacher: tuple[str, ...]) -> None:
    nothing = application("-m", "hydra/sweeper=optuna", "study=search", *teacher)
    assert nothing.code == 2 and "has nothing to search" in nothing.errors
    code = application(*SEARCH, *teacher, "hydra.sweeper.custom_search_space=os.system")
    assert code.code == 2 and "custom_search_space=os.system is refused" in code.errors
    grid = application(*SEARCH, *teacher, "hydra/sweeper/sampler=grid")
    grid.is_mistake("hydra/sweeper/sampler=grid", "Omit hydra/sweeper=optuna")
    unscored = application(*SEARCH[:3], "stage=annotate", "annotate.samples=choice(1,2)", "logger=none")
    assert unscored.code == 2 and "objective=METRIC" in unscored.errors


def test_a_search_can_be_planned(application: Application, teacher: tuple[str, ...], tmp_path: Path) -> None:
    plan = application(*SEARCH, *teacher, "hydra.sweeper.n_trials=3", "plan=true")
    assert plan.code == 0 and "up to 3 trials" in plan.output and "to create" in plan.output, plan.errors
    assert not (tmp_path / "runs" / "search").exists()


def test_a_trial_behind_the_others_is_pruned(application: Application, teacher: tuple[str, ...], tmp_path: Path) -> None:
    """Two trials had a better score after the first of two epochs; the third is pruned there."""
    (tmp_path / "runs" / "search").mkdir(parents=True)
    storage = f"sqlite:///{tmp_path}/runs/search/optuna.sqlite"
    study = optuna.create_study(study_name="search", storage=storage, direction="maximize")
    space = {"trainer.learning_rate": optuna.distributions.UniformDistribution(1e-4, 1e-2)}
    for rate in (1e-3, 2e-3):
        scores = {"value": 1.1, "intermediate_values": {100: 1.1}}
        study.add_trial(optuna.trial.create_trial(params={"trainer.learning_rate": rate}, distributions=space, **scores))
    words = (word for word in teacher if word != "trainer.max_epochs=1")
    command = (*SEARCH, *words, "trainer.max_epochs=2", "hydra.sweeper.n_trials=3", "hydra.sweeper.pruner.n_startup_trials=2")
    outcome = application(*command)
    assert outcome.code == 0 and "best of 3 trials (1 pruned): val/macro_f1 = 1.1" in outcome.errors, outcome.errors
    [job] = tmp_path.glob("runs/search/teacher-*/status.json")
    status = json.loads(job.read_text())
    assert status["state"] == "pruned" and status["error"].startswith("pruned at epoch 1: "), status
    [trial] = study.get_trials(states=[optuna.trial.TrialState.PRUNED])
    assert list(trial.intermediate_values) == [100] and trial.value == trial.intermediate_values[100], (
        "the sampler learns from it"
    )
    again = application(*command)
    assert again.code == 0 and "3 trials: 3 already done, 0 to run" in again.errors, again.errors


SLOW = ("trainer.batch_size=1", "trainer.max_epochs=4", "trainer.checkpoint_every=10", "hydra.sweeper.pruner.n_startup_trials=9")


def checkpoint(root: Path) -> Path | None:
    """The last checkpoint of a running job."""
    with suppress(OSError, ValueError):
        for path in root.glob("runs/search/teacher-*/checkpoints/last.ckpt"):
            if json.loads((path.parents[1] / "status.json").read_text())["state"] == "running":
                return path
    return None


@pytest.mark.slow
def test_a_killed_command_is_continued_in_the_middle_of_a_trial(
    application: Application, start: Any, teacher: tuple[str, ...], tmp_path: Path
) -> None:
    command = (*SEARCH, *teacher, *SLOW, "hydra.sweeper.n_trials=2")
    process = start(*command)
    wait_for(lambda: checkpoint(tmp_path), process)
    application(*command).is_mistake("another command is searching study=search", "choose another study=NAME")
    wait_for(lambda: "done" in states(tmp_path / "runs").values() and checkpoint(tmp_path), process)
    wait_for(lambda: stored(tmp_path).trials[1].intermediate_values, process)
    reported = time.time()
    wait_for(lambda: (path := checkpoint(tmp_path)) and path.stat().st_mtime > reported, process)
    process.kill()
    process.wait()
    first, cut = stored(tmp_path).trials
    assert (first.state, cut.state) == (TrialState.COMPLETE, TrialState.RUNNING)
    again = application(*command)
    assert again.code == 0 and "2 trials: 1 already done, 1 to run" in again.errors, again.errors
    assert "epoch 1 of 4" not in again.errors and "epoch 4 of 4" in again.errors, "it goes on from its checkpoint"
    unchanged, failed, retried = stored(tmp_path).trials
    assert unchanged == first and failed.state == TrialState.FAIL and retried.state == TrialState.COMPLETE
    assert retried.params == failed.params and [*retried.intermediate_values] == [100, 200, 300, 400]
    assert cut.intermediate_values.items() <= retried.intermediate_values.items()
    assert [*states(tmp_path / "runs").values()] == ["done", "done"], "no job was made twice"
    third = application(*command)
    assert third.code == 0 and "2 trials: 2 already done, 0 to run" in third.errors and len(stored(tmp_path).trials) == 3


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_tried_again_by_the_next_command(
    application: Application, start: Any, teacher: tuple[str, ...], tmp_path: Path
) -> None:
    command = (*SEARCH, *teacher, *SLOW, "hydra.sweeper.n_trials=1")
    process = start(*command, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1")
    wait_for(lambda: checkpoint(tmp_path), process)
    os.kill(next(iter(workers(tmp_path / "runs").values())), signal.SIGKILL)
    outcome = outcome_of(process)
    assert outcome.code == 1 and "1 of 1 trials failed, 0 of 1 are done; run the same command to resume" in outcome.errors, (
        outcome.errors
    )
    assert "killed by SIGKILL" in outcome.errors and "Traceback" not in outcome.errors, outcome.errors
    assert [*states(tmp_path / "runs").values()] == ["failed"]
    again = application(*command)  # with another launcher
    assert again.code == 0, again.errors
    failed, retried = stored(tmp_path).trials
    assert (failed.state, retried.state) == (TrialState.FAIL, TrialState.COMPLETE) and retried.params == failed.params
    assert [*states(tmp_path / "runs").values()] == ["done"]


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.sqlite"


def opened(storage: str) -> optuna.Study:
    """The study as the next command opens it."""
    return optuna.create_study(study_name="search", storage=storage, direction="maximize", load_if_exists=True)


def begin(storage: str) -> optuna.trial.Trial:
    trial = opened(storage).ask()
    trial.suggest_float(RATE, 1e-4, 1e-2)
    return trial


def state_names(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def test_cut_trials_wait_to_be_tried_again_each_once(storage: str) -> None:
    rates = [begin(storage).params[RATE] for _ in range(3)]
    opened(storage).tell(0, 0.5)
    begin(storage).set_system_attr(DIED, True)
    begin(storage)
    for number in (3, 4):  # trial 3 died with its process, trial 4 failed by itself
        opened(storage).tell(number, state=TrialState.FAIL)
    opened(storage).ask()  # interrupted before it had any values
    requeue_cut_trials(opened(storage))
    expected = ["COMPLETE", "FAIL", "FAIL", "FAIL", "FAIL", "FAIL", "WAITING", "WAITING", "WAITING"]
    assert state_names(opened(storage)) == expected
    requeue_cut_trials(opened(storage))  # interrupted before the first retry started
    assert state_names(opened(storage)) == expected
    opened(storage).ask()  # interrupted before its values were written
    requeue_cut_trials(opened(storage))
    again = [begin(storage) for _ in range(3)]
    assert [trial.number for trial in again] == [7, 8, 9] and again[0].params[RATE] == rates[2]
    assert again[2].params[RATE] == rates[1]


def test_a_job_that_outlives_its_command_reports_to_the_trial_of_the_next(storage: str) -> None:
    for value in (0.8, 0.9):
        trial = begin(storage)
        for step in (100, 200, 300):
            trial.report(value, step)
        opened(storage).tell(trial.number, value)
    rate = begin(storage).params[RATE]
    pruner = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 2}
    report = judge(SimpleNamespace(study_name="search", storage=storage, pruner=pruner), [f"{RATE}={rate}"])
    report(1, 0.9)
    requeue_cut_trials(opened(storage))
    report(1.5, 0.1)  # before the next command has started the retry
    assert begin(storage).params[RATE] == rate
    report(2, 0.9)
    cut, retried = opened(storage).trials[2:]
    assert cut.intermediate_values == {100: 0.9} and retried.intermediate_values == {100: 0.9, 200: 0.9}


@pytest.mark.slow
def test_one_failed_trial_does_not_end_a_search(application: Application, teacher: tuple[str, ...], tmp_path: Path) -> None:
    """The second trial has one row to train on, which is too few."""
    words = ("-m", "hydra/sweeper=optuna", "study=search", *teacher, "data.labelled=choice(1,10,20)", "hydra.sweeper.n_trials=3")
    (tmp_path / "runs" / "search").mkdir(parents=True)
    study = optuna.create_study(
        study_name="search", storage=f"sqlite:///{tmp_path}/runs/search/optuna.sqlite", direction="maximize"
    )
    for rows in (20, 1, 10, 20):
        study.enqueue_trial({"data.labelled": rows})
    stopped = application(*words, "sweep.on_error=stop")
    assert stopped.code != 0 and state_names(study) == ["COMPLETE", "FAIL", "WAITING", "WAITING"], stopped.errors
    outcome = application(*words)
    assert outcome.code == 0 and state_names(study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"], outcome.errors
