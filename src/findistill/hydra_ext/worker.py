"""A job of a sweep in another process, possibly on another machine: its task, how it runs, and its outcome.

A task is text only and is composed where it runs, so that no pickle, script or log of a cluster contains more of the
configuration than what was typed; keys are read from the environment there.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import open_dict

from findistill.config.groups import config_dir
from findistill.core import termination
from findistill.core.search import PrunedError
from findistill.core.step import load
from findistill.errors import BusyError, UserError, first_line
from findistill.hydra_ext.read_once import read_once

log = logging.getLogger(__name__)

JOB = "findistill.cli:run"


@dataclass(frozen=True)
class Task:
    """One job of a sweep.

    Attributes:
        config_name: the root configuration's name.
        overrides: the overrides of the `hydra` node, then the job's.
        number: the job's index in the sweep, from 0.
        folder: the command's working directory, to which paths are relative.
    """

    config_name: str
    overrides: Sequence[str]
    number: int
    folder: str


@dataclass(frozen=True)
class Outcome:
    """How a task ended: with the `value` of its objective, or with an error in one line.

    With an error, its process may have `died`, or a search `pruned` it.
    """

    value: float | None = None
    error: str | None = None
    died: bool = False
    pruned: bool = False


def run(task: Task, *, trace: bool = False) -> Outcome:
    """Run a task in this process, which does nothing else. With `trace`, log the traceback of an unexpected error.

    If another process is running the same job, wait for it: an interrupted command may have left it in a queue.

    Raises:
        KeyboardInterrupt: SIGTERM or Ctrl-C; the job has recorded that it was interrupted.
    """
    termination.install()
    os.chdir(task.folder)
    try:
        ended = _run(task)
        while isinstance(ended._return_value, BusyError):
            log.info("%s", first_line(ended._return_value))
            ended._return_value.wait()
            ended = _run(task)
        error = ended._return_value if ended.status == JobStatus.FAILED else None
    except Exception as raised:  # while composing the configuration
        error = raised
    termination.check()
    if error is None:
        return Outcome(value=ended.return_value)
    if isinstance(error, PrunedError):
        return Outcome(error=str(error), pruned=True)
    if trace and not isinstance(error, UserError):
        log.error("", exc_info=error)
    return Outcome(error=first_line(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}")


def _run(task: Task) -> JobReturn:
    if not GlobalHydra.instance().is_initialized():
        initialize_config_dir(str(config_dir()), version_base="1.3", job_name="findistill")
    loader = GlobalHydra.instance().config_loader()
    read_once(loader)
    config = loader.load_configuration(task.config_name, list(task.overrides), RunMode.RUN)
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = task.number
    context = HydraContext(config_loader=loader, callbacks=Callbacks(config))
    return run_job(load(JOB), config, "hydra.sweep.dir", "hydra.sweep.subdir", context)
