"""A search is cut and continued by the same command; its trials are jobs like all others."""

import json
from pathlib import Path

import optuna
import pytest

from tests.faults.conftest import Application, application, start, teacher, tiny

assert application and start and teacher and tiny  # fixtures

SEARCH = ("-m", "hydra/sweeper=optuna", "study=search", "trainer.learning_rate=interval(1e-4,1e-2)", "report.resamples=10")


def trials(root: Path) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{root}/runs/search/optuna.sqlite")
    return study.get_trials(states=[optuna.trial.TrialState.COMPLETE])


@pytest.mark.slow
def test_a_search_of_four_trials_is_cut_and_continued(application: Application, teacher: tuple[str, ...], tmp_path: Path) -> None:
    command = (*SEARCH, *(word for word in teacher if word != "sweep.report=false"), "hydra.sweeper.sampler.seed=0")
    first = application(*command, "hydra.sweeper.n_trials=2")
    assert first.code == 0 and "2 trials: 0 done before, 2 to run" in first.errors, first.errors
    values = {trial.number: trial.value for trial in trials(tmp_path)}
    assert len(values) == 2
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path}/runs/search/optuna.sqlite")
    running = study.ask()  # as a killed process leaves one
    running.suggest_float("trainer.learning_rate", 1e-4, 1e-2)
    again = application(*command, "hydra.sweeper.n_trials=4")
    assert again.code == 0 and "4 trials: 2 done before, 2 to run" in again.errors, again.errors
    complete = trials(tmp_path)
    assert len(complete) == 4 and {trial.number: trial.value for trial in complete}.items() >= values.items()
    rates = [trial.params["trainer.learning_rate"] for trial in complete]
    assert running.params["trainer.learning_rate"] in rates, "the cut trial was tried again with its own values"
    scores = [json.loads(path.read_text())["val/macro_f1"] for path in tmp_path.glob("runs/search/teacher*/metrics.json")]
    assert sorted(scores) == sorted(trial.value for trial in complete)
    assert "best of" in again.errors and (tmp_path / "runs" / "search" / "report.html").exists()
    third = application(*command, "hydra.sweeper.n_trials=4")
    assert third.code == 0 and "4 trials: 4 done before, 0 to run" in third.errors


def test_what_cannot_be_searched_is_told(application: Application, teacher: tuple[str, ...]) -> None:
    nothing = application("-m", "hydra/sweeper=optuna", "study=search", *teacher)
    assert nothing.code == 2 and "has nothing to search" in nothing.errors
    code = application(*SEARCH, *teacher, "hydra.sweeper.custom_search_space=os.system")
    assert code.code == 2 and "custom_search_space=os.system is refused" in code.errors
    unscored = application(*SEARCH[:3], "stage=annotate", "annotate.samples=choice(1,2)", "logger=none")
    assert unscored.code == 2 and "objective=METRIC" in unscored.errors


def test_a_search_can_be_planned(application: Application, teacher: tuple[str, ...], tmp_path: Path) -> None:
    plan = application(*SEARCH, *teacher, "hydra.sweeper.n_trials=3", "plan=true")
    assert plan.code == 0 and "up to 3 trials" in plan.output and "to make" in plan.output, plan.errors
    assert not (tmp_path / "runs" / "search").exists()


def test_a_trial_behind_the_others_is_pruned(application: Application, teacher: tuple[str, ...], tmp_path: Path) -> None:
    """Two trials with a perfect score after the first of two epochs are there; the third has none, and ends there."""
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
    assert list(trial.intermediate_values) == [100]
    again = application(*command)
    assert again.code == 0 and "3 trials: 3 done before, 0 to run" in again.errors, again.errors
