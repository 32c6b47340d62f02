"""`hydra/launcher=joblib`: parallel worker processes on this machine, each with one job at a time.

joblib's own pool ends all its workers when one is killed; here the others continue.
"""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from findistill.core import termination
from findistill.core.processors import cores
from findistill.hydra_ext.launching import Workers
from findistill.hydra_ext.worker import Outcome, Task, run

ALIVE_S = 1.0  # between two checks for dead workers, whose children may keep the connection open
END_S = termination.CLEANUP_S + 1


@dataclass(frozen=True)
class Worker:
    process: SpawnProcess
    connection: Connection


class LocalWorkers(Workers):
    """`n_jobs` processes; -1 is one per core."""

    def __init__(self, n_jobs: int = -1) -> None:
        self.n_jobs = n_jobs if n_jobs > 0 else max(1, cores() + 1 + n_jobs)

    def outcomes(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        waiting, size = deque(tasks), min(self.n_jobs, len(tasks))
        busy: dict[Worker, int] = {}
        idle: list[Worker] = []
        try:
            while busy or (waiting and not self.stopping):
                while waiting and not self.stopping and len(busy) < size:
                    worker, task = idle.pop() if idle else self._start(size), waiting.popleft()
                    busy[worker] = task.number
                    worker.connection.send(task)
                ready = wait([worker.connection for worker in busy], ALIVE_S)
                for worker in [each for each in busy if each.connection in ready or not each.process.is_alive()]:
                    outcome = _received(worker)
                    if not outcome.died:
                        idle.append(worker)
                    yield busy.pop(worker), outcome
        finally:
            _end([*idle, *busy])

    @staticmethod
    def _start(size: int) -> Worker:
        ours, theirs = get_context("spawn").Pipe()
        # Not daemonic: a job may itself train in several processes.
        process = get_context("spawn").Process(target=serve, args=(theirs, max(1, cores() // size)))
        process.start()
        theirs.close()
        return Worker(process, ours)


def serve(connection: Connection, threads: int) -> None:
    """Run tasks in a worker until the command ends, in whatever way."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # read when torch is loaded, by the first job
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        while True:
            connection.send(run(connection.recv()))
    except (EOFError, BrokenPipeError):
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(termination.EXIT_CODE)


def _follow_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _received(worker: Worker) -> Outcome:
    try:
        if worker.connection.poll():
            outcome: Outcome = worker.connection.recv()
            return outcome
    except (EOFError, ConnectionError):
        pass
    worker.process.join()
    code = worker.process.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
    memory = ", probably because the machine ran out of memory" if code == -signal.SIGKILL else ""
    return Outcome(error=f"its process {how}{memory}", died=True)


def _end(workers: Sequence[Worker]) -> None:
    """Close the connections, which ends idle workers; terminate those that still run a job."""
    termination.acknowledge()
    for worker in workers:
        worker.connection.close()
    for worker in workers:
        worker.process.join(0.2)
        if worker.process.is_alive():
            worker.process.terminate()
    for worker in workers:
        worker.process.join(END_S)
        worker.process.kill()
