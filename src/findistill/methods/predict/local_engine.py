"""engine=local: one process per core, each with the model loaded.

Few rows, a GPU, or a language model (which uses all cores itself) need no further process.
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

Submit = Callable[[list[str]], Callable[[], Answers]]  # texts -> a function that waits for their answers

_predictor: Predictor


@contextmanager
def opened(spec: Spec, predictor: Predictor, section: Predict, windows: int) -> Iterator[tuple[Submit, int]]:
    """A function that submits texts, and how many windows to submit ahead of the one being waited for.

    Args:
        predictor: the model that `spec` describes, open in this process.
        windows: their total number.
    """
    workers = min(section.workers or cores(), windows)
    if workers <= 1 or spec.accelerator != "cpu" or spec.whole_machine:
        yield lambda texts: _answered(predictor, texts), 0
        return
    # Workers are forked from a server process that imports what they need once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    alone = replace(spec, threads=max(1, cores() // workers))
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(alone,))
    try:
        yield lambda texts: _waiting(pool.submit(_answer, texts), workers), workers + 2
    finally:
        for process in list((pool._processes or {}).values()):  # an interrupt does not wait for running windows
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
                "a worker process died, perhaps out of memory; the same command resumes from the last shard.\n"
                f"To use fewer processes: predict.workers={max(1, workers // 2)}"
            ) from error

    return result


def _begin(spec: Spec) -> None:
    """Open the model in a worker, which exits when the job's process does, however that ends."""
    global _predictor
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the job's process handles it
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    logging.getLogger("findistill").setLevel(logging.ERROR)
    _predictor = open_predictor(spec)


def _answer(texts: list[str]) -> Answers:
    return _predictor.answer(texts)
