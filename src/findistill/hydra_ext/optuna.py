"""Searches with Optuna that continue: the same command again runs the trials that are left.

The search itself is hydra-optuna-sweeper's. Jobs that are done give their score without running again, so a trial that was
cut is tried again with its own values and goes on from the job's last checkpoint.
"""

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl
from optuna.trial import TrialState

from findistill.config.compose import without_hydra
from findistill.core import run_folder
from findistill.core import study as studies
from findistill.core.plan import PlannedJob, describe
from findistill.core.step import load
from findistill.errors import SweepError, UserError
from findistill.hydra_ext.sweeper import REPORT
from findistill.methods.stage import stage_of

log = logging.getLogger(__name__)


class ContinuingSearch(OptunaSweeperImpl):
    """hydra-optuna-sweeper's loop over the trials that its storage lacks."""

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until `n_trials` are complete, those of earlier commands counted.

        Raises:
            UserError: the stage has no score to optimise, or a setting is refused.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        config, searched = self._fixed(arguments)
        step = stage_of(config)
        if config.plan:
            sys.stdout.write(f"{describe([PlannedJob([], config, step)])}up to {self.n_trials} trials, each a job of this kind\n")
            return
        sections = run_folder.sections(config, step)
        studies.admit(run_folder.study_folder(config), config.study, [sections], [*searched, *config.sweep.vary])
        study = self._study(config)
        complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
        self.n_trials -= len(complete)
        log.info("%d trials: %d done before, %d to run", self.n_trials + len(complete), len(complete), max(0, self.n_trials))
        if study.trials:  # the seed's first draws are made; the same ones again would search nothing new
            self.sampler.reseed_rng()
        if self.n_trials > 0:
            super().sweep(arguments)
        if not any(trial.state == TrialState.COMPLETE for trial in study.trials):
            raise SweepError(f"none of {len(study.trials)} trials is done; {run_folder.study_folder(config)} has their errors")
        if config.sweep.report:
            load(REPORT)(Path(config.runs_dir), config.study, config.report)
        best = study.best_trial
        values = " ".join(f"{name}={value!s}" for name, value in best.params.items())
        objective = config.objective or config.trainer.monitor
        log.info("best of %d trials: %s = %.4f with %s", len(study.trials), objective, best.value, values)

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
            study_name=self.study_name, storage=self.storage, directions=self._get_directions(), load_if_exists=True
        )
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.enqueue_trial(trial.params)
        return study
