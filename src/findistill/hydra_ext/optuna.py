"""Optuna searches that resume: the same command again runs the remaining trials.

The search space has hydra-optuna-sweeper's grammar. Done jobs return their score without running again, so a trial whose
command or worker was killed is repeated with the same values: its job resumes from its last checkpoint, or, if it has ended
meanwhile, just returns its score. Only one command at a time runs a search, so any trial still marked as running was cut off.
"""

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext
from hydra.utils import instantiate
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl, create_params_from_overrides
from optuna.trial import FrozenTrial, TrialState

from findistill.config.compose import without_hydra
from findistill.config.overrides import swept_settings
from findistill.core import run_folder
from findistill.core import study as studies
from findistill.core.closing import sync_line
from findistill.core.hashing import digest
from findistill.core.plan import PlannedJob, describe
from findistill.core.search import Judge, PrunedError
from findistill.errors import SweepError, UserError, first_line
from findistill.hydra_ext.launching import DiedError
from findistill.hydra_ext.read_once import compose_job, read_once
from findistill.methods.report.steps import make_report
from findistill.methods.stage import stage_of

log = logging.getLogger(__name__)

DIED = "findistill:died"  # marks a failed trial whose worker died, which says nothing about its values


class ContinuingSearch(OptunaSweeperImpl):
    """hydra-optuna-sweeper's search, except that it only runs the trials that the storage lacks."""

    def __init__(self, sampler: Any, *, pruner: Any, **settings: Any) -> None:
        super().__init__(sampler, **settings)
        self.run_count = self.failure_count = 0  # trials of this command

    def setup(self, *, hydra_context: HydraContext, **options: Any) -> None:
        super().setup(hydra_context=hydra_context, **options)
        read_once(hydra_context.config_loader)

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until `n_trials` are complete or pruned, including those of earlier commands.

        Raises:
            UserError: the stage has no score to optimise, a setting is refused, or another command is running the search.
            SweepError: no trial is complete, or more than `max_failure_rate` of this command's failed (with
                `sweep.on_error=stop`, one did).
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        config, searched = self._fixed(arguments)
        step = stage_of(config)
        if config.plan:
            sys.stdout.write(f"{describe([PlannedJob([], config, step)])}up to {self.n_trials} trials, each a job like this\n")
            return
        sections = run_folder.sections(config, step)
        studies.admit(run_folder.study_folder(config), config.study, [sections], [*searched, *config.sweep.vary])
        run_folder.study_folder(config).mkdir(parents=True, exist_ok=True)
        with _alone(run_folder.study_folder(config)):
            self._search(config, arguments)

    def _search(self, config: Any, arguments: list[str]) -> None:
        """Run the remaining trials, and log the best one."""
        distributions, fixed = create_params_from_overrides([*self._parse_sweeper_params_config(), *arguments])
        study = self._study()
        requeue_cut_trials(study)
        done = _count(study, TrialState.COMPLETE, TrialState.PRUNED)
        log.info("%d trials: %d already done, %d to run", self.n_trials, done, max(0, self.n_trials - done))
        if study.trials:  # with the same seed, the first draws would be repeated
            self.sampler.reseed_rng()
        studies.note_command(run_folder.study_folder(config), sys.argv[1:], trials=self.n_trials)
        while (left := self.n_trials - _count(study := self._study(), TrialState.COMPLETE, TrialState.PRUNED)) > 0:
            self._run([study.ask() for _ in range(min(self.n_jobs, left))], distributions, fixed)
        if not _count(study, TrialState.COMPLETE):
            raise SweepError(f"none of {len(study.trials)} trials completed; {run_folder.study_folder(config)} has the errors")
        if config.sweep.report:
            make_report(config)
        best, pruned = study.best_trial, _count(study, TrialState.PRUNED)
        values = " ".join(f"{name}={value!s}" for name, value in best.params.items())
        objective = config.objective or config.trainer.monitor
        number = f"{len(study.trials)} trials{f' ({pruned} pruned)' if pruned else ''}"
        log.info("best of %s: %s = %.4f with %s", number, objective, best.value, values)
        if line := sync_line(run_folder.study_folder(config)):
            log.info("%s", line)

    def _run(self, trials: list[optuna.Trial], distributions: Any, fixed: dict[str, Any]) -> None:
        """Run trials in parallel, and record their outcomes in the storage."""
        assert self.launcher is not None and self.config is not None
        stop = self.config.sweep.on_error == "stop"
        words = self._configure_trials(trials, {k: v for k, v in distributions.items() if k not in fixed}, fixed)
        returned = self.launcher.launch(words, initial_job_idx=self.job_idx)
        self.job_idx += len(returned)
        study, failures = self._study(), []
        for trial, job, overrides in zip(trials, returned, words, strict=True):
            value = job._return_value
            if isinstance(value, PrunedError):
                study.tell(trial.number, state=TrialState.PRUNED)
            elif isinstance(value, int | float):
                study.tell(trial.number, float(value))
            else:
                failures.append(value if isinstance(value, Exception) else SweepError("the job has no score to optimise"))
                if isinstance(value, DiedError):
                    trial.set_system_attr(DIED, True)
                    self._note_death(overrides, value)
                study.tell(trial.number, state=TrialState.FAIL)
                log.warning("trial %d failed: %s", trial.number, first_line(failures[-1]))
        self.run_count += len(returned)
        self.failure_count += len(failures)
        if not failures or (not stop and self.failure_count <= self.max_failure_rate * self.run_count):
            return
        if isinstance(failures[0], UserError):
            raise failures[0]
        done = _count(study, TrialState.COMPLETE, TrialState.PRUNED)
        count = f"{self.failure_count} of {self.run_count} trials failed, {done} of {self.n_trials} are done"
        raise SweepError(f"{count}; run the same command to resume. Last failure: {first_line(failures[-1])}")

    def _note_death(self, overrides: Sequence[str], error: DiedError) -> None:
        """Record in a trial's run folder that its job's process died."""
        assert self.hydra_context is not None and self.config is not None
        composed, words = compose_job(self.hydra_context.config_loader, self.config, overrides)
        config = without_hydra(composed)
        step = stage_of(config)
        run_folder.note_death(run_folder.folder_of(config, step, words), step.key, str(error))

    def _fixed(self, arguments: Sequence[str]) -> tuple[Any, list[str]]:
        """The configuration common to all trials, and the names of the searched settings."""
        words = [*swept_settings(self.params), *arguments]
        overrides = OverridesParser.create().parse_overrides(words)
        searched = [str(each.get_key_element()) for each in overrides if each.is_sweep_override()]
        fixed = [each.input_line or "" for each in overrides if not each.is_sweep_override()]
        assert self.hydra_context is not None and self.config is not None
        config = without_hydra(compose_job(self.hydra_context.config_loader, self.config, fixed)[0])
        if not searched:
            raise UserError(
                "hydra/sweeper=optuna has nothing to search: give a setting an interval or choices, such as "
                "'trainer.learning_rate=interval(1e-5,1e-4)'"
            )
        if config.objective is None and "trainer" not in config.stage.reads:
            raise UserError(f"stage={config.stage.name} has no validation score to optimise; name a metric: objective=METRIC")
        return config, searched

    def _study(self) -> optuna.Study:
        """The search, loaded from the storage again: an older object does not see what jobs reported for its trials."""
        return optuna.create_study(
            study_name=self.study_name,
            storage=self.storage,
            sampler=self.sampler,
            directions=self._get_directions(),
            load_if_exists=True,
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock a study's search for this command.

    Raises:
        UserError: another command is running it.
    """
    try:
        with FileLock(folder.parent / ".artifacts" / f"search-{digest(folder.name)}.lock").acquire(timeout=0):
            yield
    except Timeout as error:
        busy = f"another command is searching study={folder.name}; wait for it, or choose another study=NAME"
        raise UserError(busy) from error


def requeue_cut_trials(study: optuna.Study) -> None:
    """Mark trials as failed that no process runs any more, and requeue the values of those whose process was killed.

    A requeued trial keeps the scores that the pruner has seen, since its job resumes from a checkpoint and does not report all of
    them again. If this is interrupted, the next call does not queue the same values twice.
    """
    trials = study.get_trials()
    for trial in trials:
        running = trial.state == TrialState.RUNNING
        values = _values(trial)
        is_new = not any(later.number > trial.number and _values(later) == values for later in trials)
        if values and is_new and (running or (trial.state == TrialState.FAIL and DIED in trial.system_attrs)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                attributes = {"fixed_params": values}  # Optuna's own attribute for the values of a waiting trial
                scores = trial.intermediate_values
                study.add_trial(
                    optuna.trial.create_trial(state=TrialState.WAITING, system_attrs=attributes, intermediate_values=scores)
                )
        if running:
            study.tell(trial.number, state=TrialState.FAIL)


def _values(trial: FrozenTrial) -> dict[str, Any]:
    """The values of a trial; if it is waiting or was cut off early, those that it was to have."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _count(study: optuna.Study, *states: TrialState) -> int:
    return len(study.get_trials(deepcopy=False, states=states))


def judge(sweeper: Any, words: Sequence[str]) -> Judge:
    """The search's judge of the scores of the trial with the overrides `words`, in the process that runs it.

    A job may outlive its command and its trial: the next command has a new trial with these values, which then gets the scores.
    """
    pruner = instantiate(sweeper.pruner)
    study = optuna.load_study(study_name=sweeper.study_name, storage=sweeper.storage, pruner=pruner)

    def report(epochs: float, score: float) -> None:
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        own = next((one for one in running if all(f"{name}={value}" in words for name, value in one.params.items())), None)
        if own is None:
            return
        trial, step = optuna.trial.Trial(study, own._trial_id), round(100 * epochs)
        if step not in own.intermediate_values:  # a job may resume from a checkpoint before its last report
            trial.report(score, step)
        if trial.should_prune():
            raise PrunedError(f"pruned at epoch {epochs:g}: {score:.4g} is behind earlier trials")

    return report
