"""SIGTERM, with which Slurm, Docker and systemd end a process: it ends a command like Ctrl-C, and is never lost.

Python drops exceptions that a signal handler raises inside a destructor or a weak reference's callback. So the interrupt is
raised again every few seconds until the job has noticed it, and dropped ones are not printed. Clean-up may hang in a library
that was interrupted where it did not expect it, so it has a time limit; that is safe, since files are written atomically.
"""

import os
import signal
import sys
import threading
import time
from types import FrameType

AGAIN_S = 2.0  # between two interrupts: long enough for code that has noticed the first to close its files
CLEANUP_S = 8.0  # Docker kills 10 s after SIGTERM, Slurm 30
EXIT_CODE = 128 + signal.SIGTERM
INTERRUPTED = "findistill: interrupted; run the same command to resume\n"

_requested = False
_acknowledged = False
_said = False


def install() -> None:
    """Let SIGTERM interrupt this process; must be called in its main thread."""
    signal.signal(signal.SIGTERM, _terminate)
    # Set now, since Lightning restores all handlers at the end of a fit: the default one would end the process.
    if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
        signal.signal(signal.SIGALRM, _interrupt)
    report = sys.unraisablehook
    sys.unraisablehook = lambda dropped: None if _requested and dropped.exc_type is KeyboardInterrupt else report(dropped)


def requested() -> bool:
    """Whether SIGTERM has arrived."""
    return _requested


def check(error: BaseException | None = None) -> None:
    """Raise KeyboardInterrupt if SIGTERM has arrived, since the exception that it raised may have been dropped.

    Also if `error` was caused by an interrupt (SIGTERM or Ctrl-C): an interrupted library may raise an error of its own, which
    then says nothing about the file or figure that it was working on.
    """
    if _requested:
        raise KeyboardInterrupt
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt
        error = error.__cause__ or error.__context__


def acknowledge() -> None:
    """Note that the interrupt was noticed: the clean-up that follows is not interrupted again, not even by another SIGTERM.

    After `CLEANUP_S` seconds the process ends in any case.
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
    """Do what Ctrl-C would do now: raise KeyboardInterrupt, or tell an event loop to stop."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)
