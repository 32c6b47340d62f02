"""Searches with Optuna that continue: the same command again runs the trials that are left.

The grammar of what is searched is hydra-optuna-sweeper's. Jobs that are done give their score without running again, so a
trial that was cut is tried again with its own values and goes on from the job's last checkpoint.
"""

import logging
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext
from hydra.utils import instantiate
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl, create_params_from_overrides
from optuna.trial import TrialState

from findistill.config.compose import without_hydra
from findistill.core import run_folder
from findistill.core import study as studies
from findistill.core.closing import sync_line
from findistill.core.plan import PlannedJob, describe
from findistill.core.search import Judge, PrunedError
from findistill.errors import SweepError, UserError, first_line
from findistill.hydra_ext.read_once import read_once
from findistill.methods.report.steps import make_report
from findistill.methods.stage import stage_of

log = logging.getLogger(__name__)


class ContinuingSearch(OptunaSweeperImpl):
    """Trials that the storage lacks; what is searched is read as hydra-optuna-sweeper does."""

    def __init__(self, sampler: Any, *, pruner: Any, **settings: Any) -> None:
        super().__init__(sampler, **settings)

    def setup(self, *, hydra_context: HydraContext, **options: Any) -> None:
        super().setup(hydra_context=hydra_context, **options)
        read_once(hydra_context.config_loader)

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until `n_trials` are complete or pruned, those of earlier commands counted.

        Raises:
            UserError: the stage has no score to optimise, or a setting is refused.
            SweepError: no trial is complete, or more than `max_failure_rate` of those that ran side by side failed.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        config, searched = self._fixed(arguments)
        step = stage_of(config)
        if config.plan:
            sys.stdout.write(f"{describe([PlannedJob([], config, step)])}up to {self.n_trials} trials, each a job of this kind\n")
            return
        sections = run_folder.sections(config, step)
        studies.admit(run_folder.study_folder(config), config.study, [sections], [*searched, *config.sweep.vary])
        distributions, fixed = create_params_from_overrides([*self._parse_sweeper_params_config(), *arguments])
        if isinstance(self.sampler, partial):  # of a grid, which is what is searched
            self.sampler = self.sampler({name: self._to_grid_sampler_choices(each) for name, each in distributions.items()})
            self.n_trials = min(self.n_trials, len(self.sampler._all_grids))
        study = self._study(config)
        done = _count(study, TrialState.COMPLETE, TrialState.PRUNED)
        log.info("%d trials: %d done before, %d to run", self.n_trials, done, max(0, self.n_trials - done))
        if study.trials:  # the seed's first draws are made; the same ones again would search nothing new
            self.sampler.reseed_rng()
        studies.note_command(run_folder.study_folder(config), sys.argv[1:], trials=self.n_trials)
        while (left := self.n_trials - _count(study, TrialState.COMPLETE, TrialState.PRUNED)) > 0:
            self._run([study.ask() for _ in range(min(self.n_jobs, left))], study, distributions, fixed)
        if not _count(study, TrialState.COMPLETE):
            raise SweepError(f"none of {len(study.trials)} trials is done; {run_folder.study_folder(config)} has their errors")
        if config.sweep.report:
            make_report(config)
        best, pruned = study.best_trial, _count(study, TrialState.PRUNED)
        values = " ".join(f"{name}={value!s}" for name, value in best.params.items())
        objective = config.objective or config.trainer.monitor
        number = f"{len(study.trials)} trials{f' ({pruned} pruned)' if pruned else ''}"
        log.info("best of %s: %s = %.4f with %s", number, objective, best.value, values)
        if line := sync_line(run_folder.study_folder(config)):
            log.info("%s", line)

    def _run(self, trials: list[optuna.Trial], study: optuna.Study, distributions: Any, fixed: dict[str, Any]) -> None:
        """Run trials side by side, and note in the storage how they ended."""
        assert self.launcher is not None
        words = self._configure_trials(trials, {k: v for k, v in distributions.items() if k not in fixed}, fixed)
        returned = self.launcher.launch(words, initial_job_idx=self.job_idx)
        self.job_idx += len(returned)
        failures = []
        for trial, job in zip(trials, returned, strict=True):
            value = job._return_value
            if isinstance(value, PrunedError):
                study.tell(trial, state=TrialState.PRUNED)
            elif isinstance(value, int | float):
                study.tell(trial, float(value))
            else:
                failures.append(value if isinstance(value, Exception) else SweepError("the job has no score to optimise"))
                study.tell(trial, state=TrialState.FAIL)
                log.warning("trial %d failed: %s", trial.number, first_line(failures[-1]))
        if len(failures) / len(returned) > self.max_failure_rate:
            raise failures[0] if isinstance(failures[0], UserError) else SweepError(first_line(failures[0]))

    def _fixed(self, arguments: Sequence[str]) -> tuple[Any, list[str]]:
        """The configuration of every trial, without what is searched, and the names of what is searched."""
        words = [*(f"{name!s}={value!s}" for name, value in (self.params or {}).items()), *arguments]
        overrides = OverridesParser.create().parse_overrides(words)
        searched = [str(each.get_key_element()) for each in overrides if each.is_sweep_override()]
        fixed = [each.input_line or "" for each in overrides if not each.is_sweep_override()]
        assert self.hydra_context is not None and self.config is not None
        config = without_hydra(self.hydra_context.config_loader.load_sweep_config(self.config, fixed))
        if not searched:
            raise UserError(
                "hydra/sweeper=optuna has nothing to search: give a setting an interval or choices, "
                "'trainer.learning_rate=interval(1e-5,1e-4)'"
            )
        if config.objective is None and "trainer" not in config.stage.reads:
            raise UserError(f"stage={config.stage.name} has no validation score to optimise; name a metric: objective=METRIC")
        return config, searched

    def _study(self, config: Any) -> optuna.Study:
        """The search in its storage; a trial that was running when an earlier command was cut comes first."""
        run_folder.study_folder(config).mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            study_name=self.study_name,
            storage=self.storage,
            sampler=self.sampler,
            directions=self._get_directions(),
            load_if_exists=True,
        )
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.enqueue_trial(trial.params)
        return study


def _count(study: optuna.Study, *states: TrialState) -> int:
    return len(study.get_trials(deepcopy=False, states=states))


def judge(sweeper: Any, words: Sequence[str]) -> Judge | None:
    """What the search says to the scores of the trial with the overrides `words`, in the process that runs it."""
    pruner = instantiate(sweeper.pruner)
    study = optuna.load_study(study_name=sweeper.study_name, storage=sweeper.storage, pruner=pruner)
    running = study.get_trials(states=(TrialState.RUNNING,))
    number = next((one._trial_id for one in running if all(f"{k}={v}" in words for k, v in one.params.items())), None)
    if number is None:
        return None
    trial = optuna.trial.Trial(study, number)

    def report(epochs: float, score: float) -> None:
        trial.report(score, round(100 * epochs))
        if trial.should_prune():
            raise PrunedError(f"pruned at epoch {epochs:g}: {score:.4g} is behind the trials before it")

    return report
