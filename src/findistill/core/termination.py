"""SIGTERM, with which Slurm, Docker and systemd end a process: it ends a command as Ctrl-C does, and is never lost.

Python drops what a signal handler raises inside a destructor or the callback of a weak reference. So the interrupt is raised
again every few seconds until the job that it ends has noticed, and what is dropped is not printed. Cleaning up may hang, too,
in a library that was interrupted where it did not expect it: it has a time limit, since all files are whole at any moment.
"""

import os
import signal
import sys
import threading
import time
from types import FrameType

AGAIN_S = 2.0  # long enough for what has noticed to close its files first
CLEANUP_S = 8.0  # Docker kills 10 s after SIGTERM, Slurm 30
EXIT_CODE = 128 + signal.SIGTERM
INTERRUPTED = "findistill: interrupted; the same command continues\n"

_requested = False
_acknowledged = False
_said = False


def install() -> None:
    """Let SIGTERM interrupt this process; to be called in its main thread."""
    signal.signal(signal.SIGTERM, _terminate)
    # Now, since Lightning puts all handlers back at the end of a fit: the default, to end the process, would be one of them.
    if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
        signal.signal(signal.SIGALRM, _interrupt)
    report = sys.unraisablehook
    sys.unraisablehook = lambda dropped: None if _requested and dropped.exc_type is KeyboardInterrupt else report(dropped)


def requested() -> bool:
    """Whether SIGTERM came."""
    return _requested


def check(error: BaseException | None = None) -> None:
    """Raise KeyboardInterrupt where SIGTERM came and what it raised was dropped.

    Also where `error` began as an interrupt, SIGTERM's or Ctrl-C's: a library that is interrupted half way may raise an error of
    its own, which says nothing of the file or figure that it was about.
    """
    if _requested:
        raise KeyboardInterrupt
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt
        error = error.__cause__ or error.__context__


def acknowledge() -> None:
    """The interrupt has arrived: what follows is cleaning up, and is not interrupted again, not by a second SIGTERM either.

    After `CLEANUP_S` seconds of it the process ends all the same.
    """
    global _acknowledged
    if _requested and not _acknowledged:
        _acknowledged = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        threading.Thread(target=_end, args=(CLEANUP_S,), daemon=True).start()


def say() -> None:
    """Print that the command was interrupted."""
    global _said
    _said = True
    sys.stderr.write(INTERRUPTED)


def _end(after_s: float) -> None:
    time.sleep(after_s)
    if not _said:
        say()
    sys.stderr.flush()
    os._exit(EXIT_CODE)


def _terminate(number: int, frame: FrameType | None) -> None:
    global _requested
    if _acknowledged:
        return
    _requested = True
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, AGAIN_S, AGAIN_S)
    _interrupt(number, frame)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """What Ctrl-C would do now: raise KeyboardInterrupt, or tell an event loop to stop."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)
