"""One training on several devices: a process for each, besides the job's own.

The job's process holds the lock and the loggers, waits, and later evaluates; the others train and send it what they log. They
are spawned here rather than by Lightning's launcher, which would run the whole command again for every device; this works for
the jobs of a sweep, too.
"""

import logging
import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import RLock
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
import torch.multiprocessing as mp
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from pytorch_lightning.loggers.logger import DummyLogger, Logger
from tqdm import tqdm

from findistill import plugins
from findistill.errors import UserError
from findistill.training.config import Trainer

Task = Callable[[list[Logger]], Any]  # what each process runs; its modules, rows and settings are copied into it


class RelayLogger(DummyLogger):
    """Stands in for the job's loggers: sends metrics to the job's process."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.connection.send(("metrics", {name: float(value) for name, value in metrics.items()}, step))


class RelayHandler(QueueHandler):
    """Sends log lines to the job's process, which has the handlers."""

    queue: Any  # a connection

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.send(record)


class _Pickler(pickle.Pickler):
    """Copies tensors (torch's own pickler would share them between processes), and passes memory-mapped files by path."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.memmap) and value.filename and value.nbytes == Path(value.filename).stat().st_size:
            return np.memmap, (str(value.filename), value.dtype, "r", 0, value.shape)
        return NotImplemented


def packed(value: Any) -> bytes:
    """`value`, pickled for another process."""
    buffer = BytesIO()
    _Pickler(buffer).dump(value)
    return buffer.getvalue()


def count_of(trainer: Trainer) -> int:
    """How many devices `trainer` requests: `auto` is one or, with a strategy, all GPUs (on a CPU: one)."""
    devices, gpus = trainer.devices, torch.cuda.device_count() if trainer.accelerator != "cpu" else 0
    if devices == "auto":
        return max(1, gpus) if trainer.strategy != "auto" else 1
    return max(1, gpus) if devices == -1 else devices if isinstance(devices, int) else len(devices)


def run_in_processes(task: Task, count: int, seed: int, loggers: Sequence[Logger]) -> list[Any]:
    """Call `task` in `count` processes; return their results, by rank.

    Raises:
        UserError: one of them raised it.
        torch.multiprocessing.ProcessException: one of them failed otherwise; its traceback is the message.
    """
    pipes = [mp.get_context("spawn").Pipe(duplex=False) for _ in range(count)]
    threads = max(1, torch.get_num_threads() // count)
    arguments = (packed(task), seed, bool(loggers), find_free_network_port(), threads, [sender for _, sender in pipes])
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read when torch is imported: no DDP advice on unused parameters
    context = mp.start_processes(_worker, arguments, count, join=False, start_method="spawn")
    assert context is not None
    for _, sender in pipes:
        sender.close()  # so that a pipe closes when its process ends
    receivers = {receiver: rank for rank, (receiver, _) in enumerate(pipes)}
    results: dict[int, Any] = {}
    try:
        while receivers:
            for connection in wait(list(receivers)):
                assert isinstance(connection, Connection)
                try:
                    message = connection.recv()
                except EOFError:  # the process ended
                    if receivers.pop(connection) not in results:
                        context.join()  # raises the process's error
                        raise KeyboardInterrupt from None  # torch ends an interrupted process quietly
                    continue
                match message:
                    case ("result", value):
                        results[receivers[connection]] = value
                    case ("metrics", values, step):
                        for logger in loggers:
                            logger.log_metrics(values, step)
                            logger.save()
                    case UserError():
                        raise message
                    case logging.LogRecord():
                        logging.getLogger(message.name).handle(message)
    finally:
        for process in context.processes:
            if len(results) < count:
                process.kill()
            process.join()
    return [results[rank] for rank in range(count)]


def _worker(rank: int, payload: bytes, seed: int, logs: bool, port: int, threads: int, senders: list[Connection]) -> None:
    """The body of one process; `rank` counts from 0."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    connection = senders[rank]
    for other in senders:
        if other is not connection:
            other.close()
    package = logging.getLogger("findistill")
    package.propagate = False
    package.addHandler(RelayHandler(cast(Any, connection)) if rank == 0 else logging.NullHandler())
    package.setLevel(logging.INFO)
    torch.set_num_threads(threads)
    tqdm.set_lock(RLock())  # its default is a system semaphore, which a killed process would leak
    try:
        plugins.load_packages()  # they register what a configuration may name
        task: Task = pickle.loads(payload)
        pl.seed_everything(seed + rank, workers=True, verbose=False)  # so that dropout differs between processes
        logger = RelayLogger(connection) if rank == 0 else DummyLogger()
        connection.send(("result", task([logger] if logs else [])))
    except UserError as error:
        connection.send(UserError(str(error)))
        sys.exit(1)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        connection.close()
