"""`hydra/launcher=submitit_slurm` and `submitit_local`: jobs submitted to Slurm, or run as processes on this machine instead.

The state of jobs comes from `squeue`, which every Slurm has; submitit uses `sacct`, which needs an accounting database.
"""

import logging
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from findistill.errors import UserError, first_line
from findistill.hydra_ext.launching import Workers, refuse_secrets, report_progress, require
from findistill.hydra_ext.worker import Outcome, Task, run

log = logging.getLogger(__name__)

ARRAY = 1000  # jobs in one array: Slurm's default limit is 1001
SHARED_FILES_S = 10.0  # until a result written by another host is visible here, on a network file system


@dataclass(frozen=True)
class Submitted:
    """A task as called by submitit's worker; on the signal before a time limit, it is requeued."""

    task: Task

    def __call__(self) -> Outcome:
        return run(self.task, trace=True)

    def checkpoint(self) -> Any:
        """Requeue the task; its job resumes from its last checkpoint."""
        from submitit.helpers import DelayedSubmission  # an extra, installed wherever this is called

        return DelayedSubmission(self)


class SubmititWorkers(Workers):
    """One submission per job, in arrays for Slurm.

    Args:
        cluster: slurm or local.
        array_parallelism: the number of parallel jobs.
        max_num_timeout: how often a job that reaches its time limit is requeued.
        poll_s: seconds between two checks of the queue.
        settings: parameters of submitit's executor (`timeout_min`, `gpus_per_node`, ...); those that are None are left out.
    """

    def __init__(self, cluster: str, array_parallelism: int, max_num_timeout: int, poll_s: float, **settings: Any) -> None:
        self.cluster, self.side_by_side, self.poll_s, self.max_num_timeout = cluster, array_parallelism, poll_s, max_num_timeout
        self.settings = {name: value for name, value in settings.items() if value is not None}

    def setup(self, **context: Any) -> None:
        self.submitit = require("submitit", "submitit", launcher=f"submitit_{self.cluster}")
        super().setup(**context)

    def outcomes(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        refuse_secrets(tasks)
        waiting, running = [*tasks], dict[int, Any]()
        absent: dict[int, float] = {}  # when a job was first seen neither in the queue nor with a result
        executor = self._executor()
        log.info("%d jobs for submitit's %s executor; their output is in %s", len(tasks), self.cluster, self.logs)
        progress = report_progress(lambda: self._queue(running, waiting))
        try:
            while running or (waiting and not self.stopping):
                while waiting and not self.stopping and (room := self._room(running)):
                    batch, waiting[:] = waiting[:room], waiting[room:]
                    jobs = executor.submit_array([Submitted(task) for task in batch])
                    running |= {task.number: job for task, job in zip(batch, jobs, strict=True)}
                    log.info("submitted: %s", f"{jobs[0].job_id} to {jobs[-1].job_id}" if len(jobs) > 1 else jobs[0].job_id)
                alive = self._alive(running)
                for number, job in [*running.items()]:
                    if job.paths.result_pickle.exists():
                        outcome = _result(job)
                    elif alive is None or job.job_id in alive:
                        absent.pop(number, None)
                        continue
                    elif time.monotonic() - absent.setdefault(number, time.monotonic()) < self._patience_s:
                        continue
                    else:
                        outcome = Outcome(error=f"its process ended without a result; see {job.paths.stderr}", died=True)
                    del running[number]
                    yield number, outcome
                if self.stopping:
                    self._cancel(running, only_waiting=True)
                next(progress)
                time.sleep(self.poll_s if running else 0)
        except BaseException:
            self._cancel(running, only_waiting=False)
            raise

    def _executor(self) -> Any:
        kind = self.submitit.AutoExecutor
        limit = {f"{self.cluster}_max_num_timeout": self.max_num_timeout}
        try:
            executor = kind(self.logs / "%j", cluster=self.cluster, **limit)
            parameters = kind._typed_parameters()
            named = {name if name in parameters else f"{self.cluster}_{name}": value for name, value in self.settings.items()}
            if self.cluster == "slurm":
                named["slurm_array_parallelism"] = self.side_by_side
            executor.update_parameters(**named)
        except (NameError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"hydra/launcher=submitit_{self.cluster}: {first_line(error)}") from error
        return executor

    def _room(self, running: Mapping[int, Any]) -> int:
        """How many jobs may be submitted now: Slurm limits the parallel jobs of an array itself."""
        return ARRAY if self.cluster == "slurm" else max(0, self.side_by_side - len(running))

    def _alive(self, running: Mapping[int, Any], *, state: str = "") -> set[str] | None:
        """The ids of jobs that run or wait, or only of those in `state`; None if Slurm does not respond."""
        if self.cluster == "local":
            return {job.job_id for job in running.values() if job.state == "RUNNING"}
        command = ["squeue", "--me", "--noheader", "--array", "--format=%i", *([f"--states={state}"] if state else [])]
        answer = subprocess.run(command, capture_output=True, text=True)
        return set(answer.stdout.split()) if answer.returncode == 0 else None

    @property
    def _patience_s(self) -> float:
        return SHARED_FILES_S if self.cluster == "slurm" else 0

    def _queue(self, running: Mapping[int, Any], waiting: Sequence[Task]) -> str:
        pending = self._alive(running, state="PENDING") or () if self.cluster == "slurm" else ()
        queued = sum(job.job_id in pending for job in running.values())
        return f"{len(running) - queued} jobs running, {queued + len(waiting)} waiting; logs in {self.logs}"

    def _cancel(self, running: dict[int, Any], *, only_waiting: bool) -> None:
        """Cancel all jobs, or only waiting ones; on Slurm, remove from `running` those that are gone."""
        if self.cluster == "local":
            for job in () if only_waiting else running.values():
                job.cancel()
            return
        ids = {job.job_id for job in running.values()}
        if only_waiting:
            ids &= self._alive(running, state="PENDING") or set()
        if ids:
            subprocess.run(["scancel", *(["--state=PENDING"] if only_waiting else []), *sorted(ids)], capture_output=True)
            alive = self._alive(running) or ids
            for number in [number for number, job in running.items() if job.job_id in ids - alive]:
                del running[number]


def _result(job: Any) -> Outcome:
    """The outcome that a job's process has written."""
    try:
        outcome: Outcome = job.result()
        return outcome
    except Exception as error:  # an error of submitit itself, before the task began
        return Outcome(error=f"{first_line(error)}; see {job.paths.stderr}", died=True)
