"""Sweeps that resume: Hydra's multirun, with the complete plan checked before the first job starts.

The same command again skips the jobs that are done and runs the others; one failed job does not stop the rest. Works with
every Hydra launcher, since it is only given the jobs that are not done. With `sweep.choose` the grid is run on folds of the
labelled rows, and its best settings on all of them.
"""

import gc
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf.errors import OmegaConfBaseException

from findistill.config.compose import without_hydra
from findistill.config.messages import message
from findistill.config.overrides import swept_settings
from findistill.config.targets import check_names
from findistill.core import run_folder, study
from findistill.core.closing import next_lines, sync_line
from findistill.core.files import read_json
from findistill.core.hashing import digest
from findistill.core.plan import PlannedJob, describe, duration
from findistill.core.step import load
from findistill.errors import SweepError, UserError
from findistill.hydra_ext.launching import DiedError, Workers
from findistill.hydra_ext.read_once import compose_job, read_once
from findistill.methods.report.steps import make_report
from findistill.methods.stage import stage_of
from findistill.schema import Config

log = logging.getLogger(__name__)

PROGRESS_S = 5.0  # between two log lines while a sweep is planned
CHOOSE = "findistill.report.choice:choose"


@dataclass(frozen=True)
class Job:
    """What a sweep keeps of a planned job: with their configurations, a thousand jobs would take a gigabyte.

    Attributes:
        overrides: those of the job, for commands and names.
        arguments: those that a launcher composes it from.
        folder: its run folder.
        key, live: those of its stage.
        reads: the sections of the configuration that it reads.
        settings: the part of the configuration that it reads (`run_folder.sections`).
    """

    overrides: list[str]
    arguments: list[str]
    folder: Path
    key: str
    live: bool
    reads: list[str]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep, in order, and of each study the configuration of its last job, for all that is not of one job."""

    jobs: list[Job]
    configs: dict[Path, Config]

    @property
    def config(self) -> Config:
        """The last job's configuration; settings of the sweep are the same in all."""
        return self.configs[self.jobs[-1].folder.parent]


@dataclass(frozen=True)
class Composed(PlannedJob):
    """A composed and validated job, with the arguments that a launcher composes it from."""

    arguments: list[str]


class ResumingSweeper(BasicSweeper):
    """Grid sweep over the values on the command line and in the experiment; done jobs are skipped."""

    def setup(self, *, hydra_context: HydraContext, **options: Any) -> None:
        super().setup(hydra_context=hydra_context, **options)
        read_once(hydra_context.config_loader)

    def sweep(self, arguments: list[str]) -> None:
        overrides = self._parsed([*swept_settings(self.params), *arguments])
        varied = [str(each.get_key_element()).lstrip("+") for each in overrides if each.is_sweep_override()]
        [grid] = self.split_arguments(overrides, None)
        gc.freeze()  # the modules loaded so far stay: looking for garbage among them would take a quarter of the planning
        jobs = self._composed(grid)
        first = next(jobs)
        if metric := first.config.sweep.choose:
            self._choose(grid, varied, first.config, metric)
        elif first.config.plan:
            sys.stdout.write(describe(chain([first], jobs)))
        else:
            self._run(planned(chain([first], jobs)), varied)

    def _choose(self, grid: Sequence[list[str]], varied: list[str], config: Config, metric: str) -> None:
        """Run every combination on folds, the best on all labelled rows, and export it if `sweep.export` is set."""
        if "data.fold" in varied:
            raise UserError("sweep.choose runs the folds itself: omit data.fold, and set their number with data.folds")
        if repeats := [key for key in varied if key in study.ALWAYS_VARIES]:
            raise UserError(
                f"sweep.choose compares settings, and {repeats[0]} only repeats them: repeat the best one with sweep.then, "
                f"such as \"sweep.then=['{repeats[0]}=0,1,2']\""
            )
        in_words = {" ".join(each for each in one if each.partition("=")[0].lstrip("+") in varied): one for one in grid}
        trials = {
            settings: [[*one, *of_fold(config.study, fold)] for fold in range(config.data.folds)]
            for settings, one in in_words.items()
        }
        if config.plan:
            sys.stdout.write(describe(self._composed([job for jobs in trials.values() for job in jobs])))
            sys.stdout.write(f"the best of {len(grid)} settings by {metric} is then run on all labelled rows\n")
            return
        plans = {settings: planned(self._composed(jobs)) for settings, jobs in trials.items()}
        self._run(joined(plans.values()), [*varied, "data.fold"], last=False)
        candidates = {settings: [job.folder for job in plan.jobs] for settings, plan in plans.items()}
        settings, comparison = load(CHOOSE)(candidates, metric, run_folder.study_folder(config))
        log.info("%s", comparison)
        best = in_words[settings]
        then = self._parsed(list(config.sweep.then))
        plan = planned(self._composed([[*best, *more] for more in self.split_arguments(then, None)[0]]))
        varied += [str(each.get_key_element()) for each in then]
        self._run(plan, varied, last=not config.sweep.export)
        if config.sweep.export:
            export = [*best, "stage=export", f"evaluate.model={plan.jobs[0].folder}", "sweep.report=false"]
            self._run(planned(self._composed([export])), varied)

    def _parsed(self, arguments: list[str]) -> list[Override]:
        assert self.hydra_context is not None
        return OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(arguments)

    def _run(self, plan: Plan, varied: Sequence[str], *, last: bool = True) -> None:
        """Run the jobs that are not done and write the report; if these are the `last` jobs, log the next commands."""
        assert self.config is not None and self.launcher is not None
        started = time.perf_counter()
        self._admit(plan, varied)
        for folder in plan.configs:
            names = [one.folder.name for one in plan.jobs if one.folder.parent == folder]
            study.note_command(folder, sys.argv[1:], jobs=names)

        pending = [one for one in plan.jobs if one.live or not run_folder.is_done(one.folder)]
        log.info("%d jobs: %d already done, %d to run", len(plan.jobs), len(plan.jobs) - len(pending), len(pending))
        stop = plan.config.sweep.on_error == "stop"
        size = self._batch_size(stop=stop) or len(pending)
        for start in range(0, len(pending), max(1, size)):
            batch = pending[start : start + size]
            returned = self.launcher.launch([one.arguments for one in batch], initial_job_idx=start)
            for one, each in zip(batch, returned, strict=True):
                if isinstance(each._return_value, DiedError):
                    run_folder.note_death(one.folder, one.key, str(each._return_value))
            if stop and any(run_folder.status(one.folder).get("state") == "failed" for one in batch):
                break
            if not start and "torch" not in sys.modules:  # a frozen model would never be freed
                gc.collect()
                gc.freeze()  # the modules that the first job loaded stay, too
        self._close(plan, pending, time.perf_counter() - started, last)

    def _batch_size(self, *, stop: bool) -> int | None:
        """How many jobs the launcher is given at once; None: all.

        Hydra's own launcher runs them one after the other, and would keep two configurations of each until the last has ended.
        Others are given as many as they run in parallel if the first failure is to `stop` the sweep; findistill's see to that.
        """
        assert self.config is not None
        if isinstance(self.launcher, BasicLauncher):
            return 1
        side_by_side: int = self.config.hydra.launcher.get("n_jobs") or 1
        return side_by_side if stop and not isinstance(self.launcher, Workers) and side_by_side > 0 else None

    def _composed(self, grid: Sequence[list[str]]) -> Iterator[Composed]:
        """Compose and check the jobs one after the other. Those that only differ in settings that are not read are one."""
        assert self.config is not None and self.hydra_context is not None
        identities = set[tuple[Path, str]]()
        last_line = time.monotonic()
        for number, overrides in enumerate(grid):
            if time.monotonic() - last_line > PROGRESS_S:
                last_line = time.monotonic()
                log.info("planning: %d of %d jobs composed and checked", number, len(grid))
            try:
                composed, task = compose_job(self.hydra_context.config_loader, self.config, overrides)
                check_names(composed)
                config = without_hydra(composed)
                stage = stage_of(config)
            except (UserError, HydraException, OmegaConfBaseException) as error:
                words = str(error) if isinstance(error, UserError) else message(error)
                raise UserError(_of_job(words, overrides) if len(grid) > 1 else words) from error
            if stage.of_study:
                raise UserError(f"stage={stage.name} applies to a complete study: run it without -m")
            if stage.previews():
                raise UserError("annotate.dry_run and annotate.show_prompt only work for a single job: run it without -m")
            if stage.acts_afterwards():
                raise UserError("export.push_to_hub only works for a single job: run it without -m")
            if (identity := (run_folder.study_folder(config), stage.key)) not in identities:
                identities.add(identity)
                yield Composed(task, config, stage, overrides)

    @staticmethod
    def _admit(plan: Plan, varied: Sequence[str]) -> None:
        swept = [*varied]
        if "experiment" in swept:  # an experiment may set whatever its stage reads
            swept += {section for one in plan.jobs for section in one.reads}
        for folder, config in plan.configs.items():
            settings = [one.settings for one in plan.jobs if one.folder.parent == folder]
            study.admit(folder, config.study, settings, [*swept, *config.sweep.vary])

    @staticmethod
    def _close(plan: Plan, pending: Sequence[Job], seconds: float, last: bool) -> None:
        """Log the sweep's cost, write the reports, log the next commands for the best job; raise if any job is not done."""
        finished = {one.folder: None for one in pending if run_folder.is_done(one.folder)}
        if finished:
            log.info("%s", costs([*finished], seconds))
        missing = [one for one in pending if one.folder not in finished]
        for folder, config in plan.configs.items():
            page = folder / "report.html"
            if not config.sweep.report or len(missing) == len(plan.jobs):
                continue
            if not run_folder.report_is_current(folder):
                make_report(config)
            else:
                log.info("the report is current: %s" if missing else "nothing to do: every job is done. Report: %s", page)
        if missing:
            lines = [f"{one.folder}: {run_folder.status(one.folder).get('error') or 'not run'}" for one in missing]
            more = [f"... and {len(lines) - 5} more"] if len(lines) > 5 else []
            header = f"{len(missing)} of {len(plan.jobs)} jobs are not done; run the same command to retry them:"
            raise SweepError("\n".join([header, *lines[:5], *more]))
        if not last:
            return
        job = plan.jobs[-1]
        best = run_folder.best_job(job.folder.parent)
        if best and best.name.startswith(f"{plan.config.stage.name}-"):  # the commands are those of the last job's stage
            job = next((one for one in plan.jobs if one.folder == best), job)
        for line in next_lines(plan.config, job.folder, job.overrides, report=not plan.config.sweep.report):
            log.info("%s", line)
        for folder in plan.configs:
            if sync := sync_line(folder):
                log.info("%s", sync)


def _of_job(words: str, overrides: Sequence[str]) -> str:
    """An error's message with the job that it occurs in, unless it begins with an override of that job; at most two lines."""
    if any(words.startswith(f"{override}:") for override in overrides):
        return words
    first, *more = words.splitlines()
    job = f"(in the job {' '.join(overrides)})"
    return "\n".join([f"{first} {job}", *more] if more else [first, job])


def planned(composed: Iterable[Composed]) -> Plan:
    """The plan of composed jobs. Sections that are equal in several jobs are stored once."""
    jobs, configs, sections = list[Job](), dict[Path, Config](), dict[str, Any]()
    for one in composed:
        reads, folder = one.step.sections_read, one.folder
        settings = {
            name: sections.setdefault(digest([name, section]), section)
            for name, section in run_folder.sections(one.config, one.step).items()
        }
        jobs.append(Job(list(one.overrides), one.arguments, folder, one.step.key, one.step.live, reads, settings))
        configs[folder.parent] = one.config
    return Plan(jobs, configs)


def joined(plans: Iterable[Plan]) -> Plan:
    """Several plans as one, each job once."""
    jobs, configs = dict[Path, Job](), dict[Path, Config]()
    for plan in plans:
        jobs |= {job.folder: job for job in plan.jobs}
        configs |= plan.configs
    return Plan(list(jobs.values()), configs)


def of_fold(study: str, fold: int) -> list[str]:
    """The overrides for a job on a fold, in a separate study and without measurements that the choice does not need."""
    return [f"study={study}-folds", f"data.fold={fold}", "evaluate.also=[]", "evaluate.latency=false", "sweep.report=false"]


def costs(folders: Sequence[Path], seconds: float) -> str:
    """How long the sweep took, and how long it would have taken if each job had created all its artifacts itself."""
    metrics = [read_json(folder / "metrics.json") for folder in folders]
    building = sum(each["time/artifacts_made_s"] for each in metrics)
    own = sum(each["time/wall_s"] - each["time/artifacts_made_s"] for each in metrics)
    apart = own + sum(each["time/artifacts_s"] for each in metrics)
    return (
        f"{len(folders)} jobs in {duration(seconds)}: artifacts, created once, took {duration(building)}; "
        f"the jobs themselves took {duration(own)}. Without sharing artifacts, it would have been {duration(apart)}."
    )
