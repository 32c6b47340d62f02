"""Pruning: a hyper-parameter search sees a job's scores during training, and may end one that is behind the others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Judge = Callable[[float, float], None]  # of the epochs done and the monitored score; may raise `PrunedError`

_judge: Judge | None = None


class PrunedError(Exception):
    """The search ended the job, whose score was behind others after the same number of epochs. Not a failure."""


@contextmanager
def judged_by(judge: Judge | None) -> Iterator[None]:
    """Pass the scores of training inside the block to `judge`."""
    global _judge
    before, _judge = _judge, judge
    try:
        yield
    finally:
        _judge = before


def report(epochs: float, score: float) -> None:
    """Report the score after a number of epochs to the search, if there is one.

    Raises:
        PrunedError: the search ends the job.
    """
    if _judge is not None:
        _judge(epochs, score)
