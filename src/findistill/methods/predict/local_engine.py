"""engine=local: one process for each core, with the model in it.

Few rows, a GPU, and a language model, which uses all cores itself, need no other process.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import wait

from findistill.core.processors import cores
from findistill.errors import UserError
from findistill.inference.predictors import Answers, Predictor, Spec, open_predictor
from findistill.methods.predict.config import Predict

Submit = Callable[[list[str]], Callable[[], Answers]]  # texts -> what waits for their answers

_predictor: Predictor


@contextmanager
def opened(spec: Spec, predictor: Predictor, section: Predict, windows: int) -> Iterator[tuple[Submit, int]]:
    """A function that has texts answered, and how many windows to give it ahead of the one whose answers are waited for.

    Args:
        predictor: the model that `spec` describes, open in this process.
        windows: how many there will be.
    """
    workers = min(section.workers or cores(), windows)
    if workers <= 1 or spec.accelerator != "cpu" or spec.whole_machine:
        yield lambda texts: _answered(predictor, texts), 0
        return
    # Workers are forked from a process that does nothing but import what they need, once for all of them.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    alone = replace(spec, threads=max(1, cores() // workers))
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(alone,))
    try:
        yield lambda texts: _waiting(pool.submit(_answer, texts), workers), workers + 2
    finally:
        for process in list((pool._processes or {}).values()):  # an interrupt does not wait for the windows in work
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _answered(predictor: Predictor, texts: list[str]) -> Callable[[], Answers]:
    answers = predictor.answer(texts)
    return lambda: answers


def _waiting(future: "Future[Answers]", workers: int) -> Callable[[], Answers]:
    def result() -> Answers:
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process has ended, perhaps since memory ran out; the same command goes on from the last shard.\n"
                f"With fewer processes: predict.workers={max(1, workers // 2)}"
            ) from error

    return result


def _begin(spec: Spec) -> None:
    """Open the model in a worker, which ends when the job's process does, however it ends."""
    global _predictor
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the job's process sees to it
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    logging.getLogger("findistill").setLevel(logging.ERROR)
    _predictor = open_predictor(spec)


def _answer(texts: list[str]) -> Answers:
    return _predictor.answer(texts)
