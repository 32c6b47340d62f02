"""Base of findistill's launchers: runs a sweep's jobs as tasks in workers, logs how they end, and applies `sweep.on_error`."""

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

PROGRESS_S = 60.0  # between two progress lines


class JobError(Exception):
    """A worker's job failed; the message is the reason in one line."""


class DiedError(JobError):
    """A worker died before its job ended: killed, out of memory, or its machine was lost."""


class Workers(Launcher):
    """Runs jobs in separate processes, so that one that dies does not affect the others.

    Attributes:
        stopping: no more tasks are started; running ones finish.
    """

    config: DictConfig
    stopping = False

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config

    @abstractmethod
    def outcomes(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """Run the tasks; yield each one's number and outcome as it ends, except those not started because of `stopping`."""

    @property
    def logs(self) -> Path:
        """The folder of the workers' files: beside the studies, since a study's folder contains nothing but jobs."""
        return Path(self.config.runs_dir, ".workers", self.config.study).absolute()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs.

        Returns:
            one entry per job, in the same order; a failed job has its error as return value, a `DiedError` if its worker died.
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
                f"{masked}: a key on the command line would be written to the scheduler's files.\n"
                "Put it into an environment variable, which jobs inherit, and refer to that: llm.api_key_env=VARIABLE, or "
                "KEY='${oc.env:VARIABLE}' for runs_dir, data.path and llm.path"
            )


def require(module: str, extra: str, launcher: str) -> Any:
    """Import a module of an extra that a launcher needs.

    Raises:
        UserError: it is not installed; the message has the command that installs it.
    """
    if find_spec(module) is None:
        remedy = f"Install it with: pip install 'findistill[{extra}]'"
        raise UserError(f"hydra/launcher={launcher} needs {module}, which is not installed.\n{remedy}")
    return import_module(module)


def report_progress(state: Callable[[], str]) -> Iterator[None]:
    """Log the state on a call of `next`, at most once a minute."""
    last = time.monotonic()
    while True:
        yield
        if time.monotonic() - last > PROGRESS_S:
            last = time.monotonic()
            log.info("%s", state())
