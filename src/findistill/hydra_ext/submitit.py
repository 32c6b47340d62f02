"""`hydra/launcher=submitit_slurm` and `submitit_local`: jobs submitted to Slurm, or run as processes on this machine instead.

The state of jobs comes from `squeue`, which every Slurm has; submitit uses `sacct`, which needs an accounting database.
"""

import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from findistill.errors import UserError, first_line
from findistill.hydra_ext.launching import Workers, refuse_secrets, report_progress, require
from findistill.hydra_ext.worker import Outcome, Task, run

log = logging.getLogger(__name__)

ARRAY = 1000  # submissions in one array: Slurm's default limit is 1001
SHARED_FILES_S = 10.0  # until a file written by another host is visible here, on a network file system
STOP = "stop"  # a file beside the outcomes: processes begin no further task


@dataclass(frozen=True)
class Submitted:
    """Tasks as called by submitit's worker, one after the other; on the signal before a time limit, they are requeued.

    Attributes:
        outcomes: the file that their outcomes are appended to, one JSON object per line.
        stop_on_error: begin no further task after one that failed, in any process.
    """

    tasks: Sequence[Task]
    outcomes: Path
    stop_on_error: bool

    def __call__(self) -> None:
        stop = self.outcomes.with_name(STOP)
        for task in self.tasks:
            if stop.exists():
                return
            outcome = run(task, trace=True)
            if self.stop_on_error and outcome.error is not None and not outcome.pruned:
                stop.touch()
            with self.outcomes.open("a") as file:
                file.write(f"{json.dumps({'number': task.number, **asdict(outcome)})}\n")
                file.flush()
                os.fsync(file.fileno())

    def checkpoint(self) -> Any:
        """Requeue the tasks: jobs that are done are skipped, and the interrupted one resumes from its last checkpoint."""
        from submitit.helpers import DelayedSubmission  # an extra, installed wherever this is called

        return DelayedSubmission(self)


@dataclass
class Process:
    """One submission.

    Attributes:
        job: submitit's.
        outcomes: the file with the outcomes of its tasks.
        pending: the tasks without an outcome: number -> task, in order.
        gone_s: since when it is known to have ended, on the monotonic clock; None: it is not.
    """

    job: Any
    outcomes: Path
    pending: dict[int, Task]
    gone_s: float | None = None

    def new_outcomes(self) -> Iterator[tuple[int, Outcome]]:
        """The number and outcome of each task that has ended since the last call."""
        text = self.outcomes.read_text() if self.outcomes.exists() else ""
        for line in text[: text.rfind("\n") + 1].splitlines():
            outcome = json.loads(line)
            if self.pending.pop(number := outcome.pop("number"), None):
                yield number, Outcome(**outcome)

    def has_ended(self, alive: set[str] | None, patience_s: float) -> bool:
        """Whether it ended at least `patience_s` ago. `alive`: the ids of the jobs that wait or run; None if unknown."""
        if not self.job.paths.result_pickle.exists() and (alive is None or self.job.job_id in alive):
            self.gone_s = None
            return False
        self.gone_s = self.gone_s or time.monotonic()
        return time.monotonic() - self.gone_s >= patience_s

    def death(self) -> str | None:
        """Why it died, in one line; None if it returned before its last task because of `STOP`."""
        message = "its process ended without a result"
        if self.job.paths.result_pickle.exists():
            try:
                self.job.result()
                return None
            except Exception as error:  # of submitit itself, before a task began
                message = first_line(error)
        return f"{message}; see {self.job.paths.stderr}"


class SubmititWorkers(Workers):
    """One process per job, or per `jobs_per_process` jobs; in arrays for Slurm.

    Args:
        cluster: slurm or local.
        array_parallelism: the number of parallel processes.
        jobs_per_process: the number of jobs that a process runs one after the other.
        max_num_timeout: how often a process that reaches its time limit is requeued.
        poll_s: seconds between two checks of the queue.
        settings: parameters of submitit's executor (`timeout_min`, `gpus_per_node`, ...); those that are None are left out.
    """

    def __init__(
        self, cluster: str, array_parallelism: int, jobs_per_process: int, max_num_timeout: int, poll_s: float, **settings: Any
    ) -> None:
        self.cluster, self.side_by_side, self.poll_s, self.max_num_timeout = cluster, array_parallelism, poll_s, max_num_timeout
        self.jobs_per_process = jobs_per_process
        self.settings = {name: value for name, value in settings.items() if value is not None}

    def setup(self, **context: Any) -> None:
        if self.jobs_per_process < 1:
            raise UserError(f"hydra.launcher.jobs_per_process={self.jobs_per_process}: must be at least 1")
        self.submitit = require("submitit", "submitit", launcher=f"submitit_{self.cluster}")
        super().setup(**context)

    def outcomes(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        refuse_secrets(tasks)
        waiting, running = [*tasks], list[Process]()
        executor = self._executor()
        self.logs.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(prefix="outcomes-", dir=self.logs))
        log.info("%d jobs for submitit's %s executor; their output is in %s", len(tasks), self.cluster, self.logs)
        progress = report_progress(lambda: self._queue(running, waiting))
        try:
            while running or (waiting and not self.stopping):
                while waiting and not self.stopping and (room := self._room(running)):
                    batch, waiting = waiting[: room * self.jobs_per_process], waiting[room * self.jobs_per_process :]
                    running += self._submitted(executor, batch, folder)
                alive = self._alive(running)
                for process in [*running]:
                    yield from process.new_outcomes()
                    if process.pending and not process.has_ended(alive, self._patience_s):
                        continue
                    running.remove(process)
                    yield from process.new_outcomes()  # written since
                    if process.pending and (error := process.death()):
                        number = next(iter(process.pending))
                        del process.pending[number]
                        yield number, Outcome(error=error, died=True)
                    waiting = [*process.pending.values(), *waiting]
                if self.stopping:
                    (folder / STOP).touch()  # for failures that no process noticed, such as its own death
                    self._cancel(running, only_waiting=True)
                next(progress)
                time.sleep(self.poll_s if running else 0)
        except BaseException:
            self._cancel(running, only_waiting=False)
            raise
        shutil.rmtree(folder, ignore_errors=True)

    def _submitted(self, executor: Any, tasks: Sequence[Task], folder: Path) -> list[Process]:
        """Submit tasks, `jobs_per_process` for each process."""
        starts = range(0, len(tasks), self.jobs_per_process)
        batches = {folder / f"{tasks[at].number}.jsonl": tasks[at : at + self.jobs_per_process] for at in starts}
        stop = self.config.sweep.on_error == "stop"
        jobs = executor.submit_array([Submitted(batch, outcomes, stop) for outcomes, batch in batches.items()])
        log.info("submitted: %s", f"{jobs[0].job_id} to {jobs[-1].job_id}" if len(jobs) > 1 else jobs[0].job_id)
        return [
            Process(job, outcomes, {task.number: task for task in batch})
            for job, (outcomes, batch) in zip(jobs, batches.items(), strict=True)
        ]

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

    def _room(self, running: Sequence[Process]) -> int:
        """How many processes may be submitted now: Slurm limits the parallel ones of an array itself."""
        return ARRAY if self.cluster == "slurm" else max(0, self.side_by_side - len(running))

    def _alive(self, running: Sequence[Process], *, state: str = "") -> set[str] | None:
        """The ids of jobs that run or wait, or only of those in `state`; None if Slurm does not respond."""
        if self.cluster == "local":
            return {process.job.job_id for process in running if process.job.state == "RUNNING"}
        command = ["squeue", "--me", "--noheader", "--array", "--format=%i", *([f"--states={state}"] if state else [])]
        answer = subprocess.run(command, capture_output=True, text=True)
        return set(answer.stdout.split()) if answer.returncode == 0 else None

    @property
    def _patience_s(self) -> float:
        return SHARED_FILES_S if self.cluster == "slurm" else 0

    def _queue(self, running: Sequence[Process], waiting: Sequence[Task]) -> str:
        queued = self._alive(running, state="PENDING") or () if self.cluster == "slurm" else ()
        n_running = sum(process.job.job_id not in queued for process in running)
        n_left = sum(len(process.pending) for process in running) + len(waiting)
        return f"{n_running} jobs running, {n_left - n_running} waiting; logs in {self.logs}"

    def _cancel(self, running: list[Process], *, only_waiting: bool) -> None:
        """Cancel all processes, or only waiting ones; on Slurm, remove from `running` those that are gone."""
        if self.cluster == "local":
            for process in () if only_waiting else running:
                process.job.cancel()
            return
        ids = {process.job.job_id for process in running}
        if only_waiting:
            ids &= self._alive(running, state="PENDING") or set()
        if ids:
            subprocess.run(["scancel", *(["--state=PENDING"] if only_waiting else []), *sorted(ids)], capture_output=True)
            alive = self._alive(running) or ids
            running[:] = [process for process in running if process.job.job_id not in ids - alive]
