"""What all launchers of findistill share: a sweep's jobs as tasks for workers, their ends on the screen, `sweep.on_error`."""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from findistill.config.fields import without_secrets
from findistill.core.search import PrunedError
from findistill.errors import UserError
from findistill.hydra_ext.worker import Outcome, Task

log = logging.getLogger(__name__)

PROGRESS_S = 60.0  # between two lines on how things stand


class JobError(Exception):
    """A worker's job failed; the message is one line of why."""


class DiedError(JobError):
    """A worker ended before its job did: killed, out of memory, or its machine was lost."""


class Workers(Launcher):
    """Jobs in processes apart from the command's. One that dies takes no other with it.

    Attributes:
        stopping: no further task is to be started; those that run end.
    """

    config: DictConfig
    stopping = False

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config

    @abstractmethod
    def outcomes(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """Run the tasks; yield each one's number and how it ended, as it ends. Leave out what `stopping` kept from starting."""

    @property
    def logs(self) -> Path:
        """Where the workers' files go: beside the studies, since a study's folder holds nothing but jobs."""
        return Path(self.config.runs_dir, ".workers", self.config.study).absolute()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs.

        Returns:
            one entry a job, in the order given; a `DiedError` in the place of a value where the worker did not say how it ended.
        """
        hydra = self.config.hydra
        tasks = [
            Task(hydra.job.config_name, (*hydra.overrides.hydra, *words), initial_job_idx + at, str(Path.cwd()))
            for at, words in enumerate(job_overrides)
        ]
        everywhere = set.intersection(*map(set, job_overrides)) if len(job_overrides) > 1 else set()
        self.stopping = False
        ends: dict[int, Outcome] = {}
        for number, outcome in self.outcomes(tasks):
            ends[number] = outcome
            self.stopping |= outcome.error is not None and not outcome.pruned and self.config.sweep.on_error == "stop"
            own = [word for word in job_overrides[number - initial_job_idx] if word not in everywhere]
            words = " ".join(map(without_secrets, own))
            log.info("[%d/%d] %s: %s", len(ends), len(tasks), _in_words(outcome), words)
        not_run = Outcome(error="not run, since another job failed and sweep.on_error=stop")
        return [_returned(task, ends.get(task.number, not_run)) for task in tasks]


def _in_words(outcome: Outcome) -> str:
    return "done" if outcome.error is None else outcome.error if outcome.pruned else f"failed: {outcome.error}"


def _returned(task: Task, outcome: Outcome) -> JobReturn:
    if outcome.error is None:
        return JobReturn(task.overrides, status=JobStatus.COMPLETED, _return_value=outcome.value)
    error = (DiedError if outcome.died else PrunedError if outcome.pruned else JobError)(outcome.error)
    return JobReturn(task.overrides, status=JobStatus.FAILED, _return_value=error)


def refuse_secrets(tasks: Sequence[Task]) -> None:
    """For launchers that write tasks to files.

    Raises:
        UserError: an override holds a password or key.
    """
    for word in (word for task in tasks for word in task.overrides):
        if (masked := without_secrets(word)) != word:
            raise UserError(
                f"{masked}: a key on the command line would lie in the scheduler's files.\n"
                "Put it into an environment variable and name that: KEY='${oc.env:VARIABLE}'"
            )


def require(module: str, extra: str, launcher: str) -> Any:
    """The module of an extra that a launcher needs.

    Raises:
        UserError: it is not; with the command that installs it.
    """
    if find_spec(module) is None:
        remedy = f"Install it with: pip install 'findistill[{extra}]'"
        raise UserError(f"hydra/launcher={launcher} needs {module}, which is not installed.\n{remedy}")
    return import_module(module)


def report_progress(state: Callable[[], str]) -> Iterator[None]:
    """Say how things stand once a minute, whenever `next` is called on it."""
    last = time.monotonic()
    while True:
        yield
        if time.monotonic() - last > PROGRESS_S:
            last = time.monotonic()
            log.info("%s", state())
