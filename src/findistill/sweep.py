"""Sweeps that continue: Hydra's multirun, with the whole plan known and checked before the first job starts.

The same command again skips the jobs that are done, runs the others, and says so; one failed job does not stop the rest.
Works with every Hydra launcher, since only the jobs that are left are handed to it.
"""

import logging
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from findistill.errors import SweepError, UserError
from findistill.runs import job as jobs
from findistill.runs import study
from findistill.runs.files import read_json, write_whole
from findistill.settings import rules
from findistill.settings.schema import Config
from findistill.stages import reads, report

# Kinds of artifacts that jobs share; the folds of `augment` are counted in it.
SHARED = ("data", "annotate", "augment", "pretrain", "teacher", "outputs", "qlora")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """One job of a sweep: the overrides that make it, its configuration and its folder."""

    overrides: list[str]
    config: Config
    folder: Path


class ResumingSweeper(BasicSweeper):
    """Grid sweep over the command line's and the experiment's lists; what is done is not done again."""

    def sweep(self, arguments: list[str]) -> None:
        assert self.config is not None and self.hydra_context is not None and self.launcher is not None
        started = time.perf_counter()
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        [grid] = self.split_arguments(overrides, None)
        plan = self._planned(grid)
        if not plan:
            raise UserError("stage=report is one job for a study: run it without -m")
        self._admit(plan, overrides)
        for path in {jobs.study_folder(one.config) for one in plan}:
            _note_command(path / "commands.txt")

        left = [one for one in plan if not jobs.is_done(one.folder)]
        log.info("%d jobs: %d done before, %d to run", len(plan), len(plan) - len(left), len(left))
        for batch in self._batches(left):
            self.launcher.launch([one.overrides for one in batch], initial_job_idx=0)
            if self._failed(batch) and plan[0].config.sweep.on_error == "stop":
                break
        self._close(plan, left, time.perf_counter() - started)

    def _planned(self, grid: Sequence[list[str]]) -> list[Planned]:
        """Compose and check every job before any starts; no jobs where the stage is `report`, which works on a whole study."""
        assert self.config is not None and self.hydra_context is not None
        plan: dict[Path, Planned] = {}
        for overrides in grid:
            composed = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
            task = list(composed.hydra.overrides.task)
            config = without_hydra(composed)
            try:
                rules.check(config)
            except UserError as error:
                raise UserError(f"{error}\n(in the job {' '.join(overrides)})" if len(grid) > 1 else str(error)) from error
            if config.stage.name == "report":
                return []
            if rules.is_preview(config):
                raise UserError("annotate.dry_run and annotate.show_prompt are for one job: run it without -m")
            folder = jobs.folder_of(config, reads(config), task)
            plan.setdefault(folder, Planned(overrides, config, folder))
        return list(plan.values())

    @staticmethod
    def _admit(plan: Sequence[Planned], overrides: Iterable[Override]) -> None:
        swept = [each.get_key_element().lstrip("+") for each in overrides if each.is_sweep_override()]
        if "experiment" in swept:  # an experiment may set whatever its stage reads
            swept += {section for one in plan for section in reads(one.config)}
        of_study: dict[Path, list[Planned]] = {}
        for one in plan:
            of_study.setdefault(jobs.study_folder(one.config), []).append(one)
        for folder, members in of_study.items():
            config = members[0].config
            settings = [jobs.sections(one.config, reads(one.config)) for one in members]
            study.admit(folder, config.study, settings, [*swept, *config.sweep.vary])

    def _batches(self, left: Sequence[Planned]) -> Iterable[Sequence[Planned]]:
        """All at once, or, where the first failure stops the sweep, as many as the launcher runs side by side."""
        assert self.config is not None
        if not left:
            return []
        size = len(left)
        if left[0].config.sweep.on_error == "stop":
            side_by_side = self.config.hydra.launcher.get("n_jobs") or 1
            size = side_by_side if side_by_side > 0 else size
        return [left[start : start + size] for start in range(0, len(left), size)]

    @staticmethod
    def _failed(plan: Sequence[Planned]) -> list[Planned]:
        return [one for one in plan if jobs.status(one.folder).get("state") == "failed"]

    def _close(self, plan: Sequence[Planned], left: Sequence[Planned], seconds: float) -> None:
        """Say what the sweep did and cost, make the reports, and raise if any job is not done."""
        finished = [one for one in left if jobs.is_done(one.folder)]
        if finished:
            log.info("%s", costs([one.folder for one in finished], seconds))
        for config in {jobs.study_folder(one.config): one.config for one in plan}.values():
            page = jobs.study_folder(config) / "report.html"
            if not config.sweep.report or not any(jobs.is_done(one.folder) for one in plan):
                continue
            if finished or not page.exists():
                report.make(Path(config.runs_dir), config.study, config.report)
            else:
                log.info("nothing to do: every job is done. Report: %s", page)
        missing = [one for one in plan if not jobs.is_done(one.folder)]
        if missing:
            lines = [f"{one.folder}: {jobs.status(one.folder).get('error') or 'not run'}" for one in missing]
            more = [f"... and {len(lines) - 5} more"] if len(lines) > 5 else []
            raise SweepError(
                "\n".join(
                    [
                        f"{len(missing)} of {len(plan)} jobs are not done; the same command runs them again:",
                        *lines[:5],
                        *more,
                    ]
                )
            )


def _note_command(path: Path) -> None:
    """Add this command to those that made the study, once."""
    known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    command = " ".join(["findistill", *map(shlex.quote, sys.argv[1:])])
    if command not in known:
        write_whole(path, "\n".join([*known, command]) + "\n")


def without_hydra(config: DictConfig) -> Config:
    """The job's own configuration, as a task function sees it."""
    from omegaconf import open_dict, read_write

    own = config.copy()
    with read_write(own), open_dict(own):
        del own["hydra"]
    return cast(Config, own)


def costs(folders: Sequence[Path], seconds: float) -> str:
    """What the sweep took, against what it would have taken had every job made the artifacts it shares."""
    metrics = [read_json(folder / "metrics.json") for folder in folders]
    made = sum(each.get("time/artifacts_made_s", 0.0) for each in metrics)
    own = sum(each["time/wall_s"] - each.get("time/artifacts_made_s", 0.0) for each in metrics)
    apart = own + sum(each.get(f"time/{kind}_s", 0.0) for each in metrics for kind in SHARED)
    return (
        f"{len(folders)} jobs in {duration(seconds)}: artifacts, made once, {duration(made)}; "
        f"the jobs themselves {duration(own)}. "
        f"Without the shared artifacts it would have been {duration(apart)}."
    )


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
