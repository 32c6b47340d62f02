"""The application: compose the configuration, check it, run the stage. Nothing heavy is imported here."""

import logging
import os
import sys
from pathlib import Path
from typing import NoReturn, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from findistill import __version__
from findistill.config.groups import config_dir, options
from findistill.core import plan as plans
from findistill.core import run_folder, study, termination
from findistill.core.closing import closing_lines, sync_line
from findistill.core.search import judged_by
from findistill.core.step import load
from findistill.hydra_ext import read_once
from findistill.hydra_ext.argv import add_conf_folders, normalize_argv
from findistill.hydra_ext.errors import exit_with
from findistill.methods.report.steps import make_report
from findistill.methods.stage import stage_of
from findistill.schema import Config

log = logging.getLogger("findistill")

# Loaded on demand.
JUDGE = "findistill.hydra_ext.optuna:judge"  # needs optuna, an extra
STUDIES = "findistill.methods.status.overview:show"
COMPLETION = "findistill.hydra_ext.completion:print_candidates"
JOB = "findistill.core.job:"  # not needed for a plan or a finished job


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")
def run(config: DictConfig) -> float | None:
    """Run one job: Hydra's task function, in this process or in a launcher's worker."""
    configure_log()
    hydra_node = HydraConfig.get()
    if hydra_node.mode == hydra.types.RunMode.MULTIRUN:
        searched = config.objective is None and hydra_node.sweeper.get("pruner")
        with judged_by(load(JUDGE)(hydra_node.sweeper, hydra_node.overrides.task) if searched else None):
            return run_job(cast(Config, config))
    try:
        return run_job(cast(Config, config))
    except Exception as error:
        raise JobError(error) from error


class JobError(BaseException):
    """Carries a single job's error past Hydra, which would print its own message."""


def run_job(config: Config) -> float | None:
    """Check the configuration, then run its stage in its run folder, unless that job is done.

    Returns:
        the value of `objective`, by default the monitored validation score; None for a job without one.

    Raises:
        UserError: the configuration or the data has a mistake that the user can fix.
        KeyboardInterrupt: SIGTERM arrived in an earlier job of this process, but its exception was dropped.
    """
    termination.check()
    stage = stage_of(config)
    if config.plan:
        sys.stdout.write(plans.describe([plans.PlannedJob([], config, stage)]))
        return None
    if stage.of_study:
        words = HydraConfig.get().overrides.task
        if (
            config.study == study.UNCHECKED and not config.report.compare and not any(word.startswith("study=") for word in words)
        ):  # no study is named
            load(STUDIES)(Path(config.runs_dir), stage.name)
            return None
        if stage.name == "report":
            make_report(config)
            if line := sync_line(run_folder.study_folder(config)):
                log.info("%s", line)
        else:
            load(stage.implementation)(Path(config.runs_dir), config.study, config.report)
        return None
    if stage.previews() and stage.preview:
        with load(JOB + "ephemeral")(stage, config) as job:
            load(stage.preview)(job)
        return None
    overrides = list(HydraConfig.get().overrides.task)
    folder = run_folder.folder_of(config, stage, overrides)
    single = HydraConfig.get().mode == hydra.types.RunMode.RUN
    if run_folder.is_done(folder) and not stage.live:
        log.info("already done: %s", folder)
    else:
        if single:
            study.admit(run_folder.study_folder(config), config.study, [run_folder.sections(config, stage)], config.sweep.vary)
        load(JOB + "run")(config, stage, folder, overrides)
    if single:  # a sweep ends with a report
        log.info("%s", closing_lines(config, folder, overrides))
        if stage.acts_afterwards() and stage.afterwards:
            load(stage.afterwards)(config, folder, overrides)
    return run_folder.objective(config, folder)


def configure_log() -> None:
    """Log findistill's messages to stderr, unformatted; other libraries only log warnings, Python's default."""
    if log.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def help_text() -> str:
    text = Path(__file__).with_name("help.txt").read_text(encoding="utf-8")
    return text.format(groups="".join(f"  {group:<11} {', '.join(names)}\n" for group, names in options().items()))


def command(arguments: list[str]) -> None:
    """Run the command line; all errors are raised."""
    termination.install()
    if "--version" in arguments:
        sys.stdout.write(f"findistill {__version__}\n")
    elif {"-sc", "--shell-completion"} & {*arguments} and any(word.startswith("query=") for word in arguments):
        load(COMPLETION)()
    elif "--help" in arguments or "-h" in arguments:
        add_conf_folders(arguments)
        sys.stdout.write(help_text())
    else:
        with read_once.shared():
            sys.argv[1:] = normalize_argv(arguments)
            run()
        termination.check()  # everything may have finished before a dropped interrupt was repeated


def main() -> NoReturn:
    """The console script.

    Exit codes: 0, done; 1, a job failed; 2, a mistake in the command or its data; 130, Ctrl-C; 143, SIGTERM.
    """
    trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors, which are worded here
    configure_log()
    arguments = sys.argv[1:]
    try:
        try:
            command(arguments)
        except JobError as error:
            exit_with(error.args[0], trace)
        except (KeyboardInterrupt, Exception) as error:
            exit_with(error, trace)
        except SystemExit as left:  # from a library, with an exit code that hides an earlier SIGTERM
            if termination.requested():
                exit_with(left, trace)
            raise
    except KeyboardInterrupt as interrupt:  # while another error was being handled
        exit_with(interrupt, trace)
    sys.exit(0)


if __name__ == "__main__":
    main()
