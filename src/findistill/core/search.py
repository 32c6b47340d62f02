"""What a search over hyper-parameters thinks of a job while it is trained: it may end one that is behind the others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Judge = Callable[[float, float], None]  # epochs done, and the monitored score; raises `PrunedError`

_judge: Judge | None = None


class PrunedError(Exception):
    """The search ended the job, whose score was behind those of others after as many epochs. No failure."""


@contextmanager
def judged_by(judge: Judge | None) -> Iterator[None]:
    """Let `judge` see the scores of what is trained inside the block."""
    global _judge
    before, _judge = _judge, judge
    try:
        yield
    finally:
        _judge = before


def report(epochs: float, score: float) -> None:
    """Tell the search, if there is one, the score after so many epochs.

    Raises:
        PrunedError: the job is to end.
    """
    if _judge is not None:
        _judge(epochs, score)
