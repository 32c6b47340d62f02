"""Sweeps that resume: Hydra's multirun, with the complete plan checked before the first job starts.

The same command again skips the jobs that are done and runs the others; one failed job does not stop the rest. Works with
every Hydra launcher, since it is only given the jobs that are not done. With `sweep.choose` the grid is run on folds of the
labelled rows, and its best settings on all of them.
"""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext

from findistill.config.compose import without_hydra
from findistill.config.targets import check_names
from findistill.core import run_folder, study
from findistill.core.closing import next_lines, sync_line
from findistill.core.files import read_json
from findistill.core.plan import PlannedJob, describe, duration
from findistill.core.step import load, sections_read
from findistill.errors import SweepError, UserError
from findistill.hydra_ext.launching import DiedError, Workers
from findistill.hydra_ext.read_once import read_once
from findistill.methods.report.steps import make_report
from findistill.methods.stage import stage_of
from findistill.schema import Config

log = logging.getLogger(__name__)

PROGRESS_S = 5.0  # between two log lines while a sweep is planned
CHOOSE = "findistill.report.choice:choose"


@dataclass(frozen=True)
class Planned(PlannedJob):
    """A job of a sweep, with the arguments that a launcher composes it from, and its run folder."""

    arguments: list[str]
    folder: Path


class ResumingSweeper(BasicSweeper):
    """Grid sweep over the values on the command line and in the experiment; done jobs are skipped."""

    def setup(self, *, hydra_context: HydraContext, **options: Any) -> None:
        super().setup(hydra_context=hydra_context, **options)
        read_once(hydra_context.config_loader)

    def sweep(self, arguments: list[str]) -> None:
        overrides = self._parsed([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        varied = [str(each.get_key_element()).lstrip("+") for each in overrides if each.is_sweep_override()]
        [grid] = self.split_arguments(overrides, None)
        plan = self._planned(grid)
        config = plan[0].config
        if config.sweep.choose:
            self._choose(grid, varied, config, config.sweep.choose)
        elif config.plan:
            sys.stdout.write(describe(plan))
        else:
            self._run(plan, varied)

    def _choose(self, grid: Sequence[list[str]], varied: list[str], config: Config, metric: str) -> None:
        """Run every combination on folds, the best on all labelled rows, and export it if `sweep.export` is set."""
        if "data.fold" in varied:
            raise UserError("sweep.choose runs the folds itself: omit data.fold, and set their number with data.folds")
        candidates, trials, composed = dict[str, list[Path]](), dict[Path, Planned](), dict[str, list[str]]()
        for one in grid:
            jobs = self._planned([[*one, *of_fold(config.study, fold)] for fold in range(config.data.folds)])
            settings = " ".join(each for each in one if each.partition("=")[0].lstrip("+") in varied)
            composed[settings], candidates[settings] = one, [job.folder for job in jobs]
            trials |= {job.folder: job for job in jobs}
        if config.plan:
            sys.stdout.write(describe(list(trials.values())))
            sys.stdout.write(f"the best of {len(grid)} settings by {metric} is then run on all labelled rows\n")
            return
        self._run(list(trials.values()), [*varied, "data.fold"], last=False)
        settings, comparison = load(CHOOSE)(candidates, metric, run_folder.study_folder(config))
        log.info("%s", comparison)
        best = composed[settings]
        then = self._parsed(list(config.sweep.then))
        plan = self._planned([[*best, *more] for more in self.split_arguments(then, None)[0]])
        varied += [str(each.get_key_element()) for each in then]
        self._run(plan, varied, last=not config.sweep.export)
        if config.sweep.export:
            self._run(self._planned([[*best, "stage=export", f"evaluate.model={plan[0].folder}", "sweep.report=false"]]), varied)

    def _parsed(self, arguments: list[str]) -> list[Override]:
        assert self.hydra_context is not None
        return OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(arguments)

    def _run(self, plan: Sequence[Planned], varied: Sequence[str], *, last: bool = True) -> None:
        """Run the jobs that are not done and write the report; if these are the `last` jobs, log the next commands."""
        assert self.config is not None and self.launcher is not None
        started = time.perf_counter()
        self._admit(plan, varied)
        for folder in {one.folder.parent for one in plan}:
            study.note_command(folder, sys.argv[1:], jobs=[one.folder.name for one in plan if one.folder.parent == folder])

        pending = [one for one in plan if one.step.live or not run_folder.is_done(one.folder)]
        log.info("%d jobs: %d already done, %d to run", len(plan), len(plan) - len(pending), len(pending))
        stop, size = plan[0].config.sweep.on_error == "stop", len(pending)
        if stop and not isinstance(self.launcher, Workers):  # in batches of as many as the launcher runs in parallel
            side_by_side = self.config.hydra.launcher.get("n_jobs") or 1
            size = side_by_side if side_by_side > 0 else size
        for start in range(0, len(pending), max(1, size)):
            batch = pending[start : start + size]
            returned = self.launcher.launch([one.arguments for one in batch], initial_job_idx=0)
            for one, each in zip(batch, returned, strict=True):
                if isinstance(each._return_value, DiedError):
                    run_folder.note_death(one.folder, one.step.key, str(each._return_value))
            if stop and any(run_folder.status(one.folder).get("state") == "failed" for one in batch):
                break
        self._close(plan, pending, time.perf_counter() - started, last)

    def _planned(self, grid: Sequence[list[str]]) -> list[Planned]:
        """Compose and check every job before any starts."""
        assert self.config is not None and self.hydra_context is not None
        plan: dict[tuple[Path, str], Planned] = {}  # by key: jobs that only differ in unread settings are the same
        last_line = time.monotonic()
        for number, overrides in enumerate(grid):
            if time.monotonic() - last_line > PROGRESS_S:
                last_line = time.monotonic()
                log.info("planning: %d of %d jobs composed and checked", number, len(grid))
            composed = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
            check_names(composed)
            task = list(composed.hydra.overrides.task)
            config = without_hydra(composed)
            try:
                stage = stage_of(config)
            except UserError as error:
                raise UserError(f"{error}\n(in the job {' '.join(overrides)})" if len(grid) > 1 else str(error)) from error
            if stage.of_study:
                raise UserError(f"stage={stage.name} applies to a complete study: run it without -m")
            if stage.previews():
                raise UserError("annotate.dry_run and annotate.show_prompt only work for a single job: run it without -m")
            if stage.acts_afterwards():
                raise UserError("export.push_to_hub only works for a single job: run it without -m")
            folder = run_folder.folder_of(config, stage, task)
            plan.setdefault((run_folder.study_folder(config), stage.key), Planned(task, config, stage, overrides, folder))
        return list(plan.values())

    @staticmethod
    def _admit(plan: Sequence[Planned], varied: Sequence[str]) -> None:
        swept = [*varied]
        if "experiment" in swept:  # an experiment may set whatever its stage reads
            swept += {section for one in plan for section in sections_read(one.step)}
        for folder in {one.folder.parent for one in plan}:
            members = [one for one in plan if one.folder.parent == folder]
            settings, config = [run_folder.sections(one.config, one.step) for one in members], members[0].config
            study.admit(folder, config.study, settings, [*swept, *config.sweep.vary])

    @staticmethod
    def _close(plan: Sequence[Planned], pending: Sequence[Planned], seconds: float, last: bool) -> None:
        """Log the sweep's cost, write the reports, log the next commands; raise if any job is not done."""
        finished = [one for one in pending if run_folder.is_done(one.folder)]
        if finished:
            log.info("%s", costs([one.folder for one in finished], seconds))
        missing = [one for one in plan if not run_folder.is_done(one.folder)]
        for folder, config in {one.folder.parent: one.config for one in plan}.items():
            page = folder / "report.html"
            if not config.sweep.report or len(missing) == len(plan):
                continue
            if not run_folder.report_is_current(folder):
                make_report(config)
            else:
                log.info("the report is current: %s" if missing else "nothing to do: every job is done. Report: %s", page)
        if missing:
            lines = [f"{one.folder}: {run_folder.status(one.folder).get('error') or 'not run'}" for one in missing]
            more = [f"... and {len(lines) - 5} more"] if len(lines) > 5 else []
            header = f"{len(missing)} of {len(plan)} jobs are not done; run the same command to retry them:"
            raise SweepError("\n".join([header, *lines[:5], *more]))
        end = plan[-1]
        for line in next_lines(end.config, end.folder, end.overrides, report=not end.config.sweep.report) if last else ():
            log.info("%s", line)
        for folder in {one.folder.parent: None for one in plan} if last else ():
            if sync := sync_line(folder):
                log.info("%s", sync)


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
