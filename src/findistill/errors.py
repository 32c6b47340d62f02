"""Error classes for mistakes that a user can fix, and suggestions for misspelt names."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in the configuration, the data or the environment that the user can fix.

    The message is one or two lines: what is wrong (config key, file, row or column, and the value) and what to do.
    The application prints it without a traceback and exits with code 2; `HYDRA_FULL_ERROR=1` adds the traceback.
    """


class BusyError(UserError):
    """Another process is running the job; `wait` returns when that process is done with it."""

    def __init__(self, message: str, wait: Callable[[], None]) -> None:
        super().__init__(message)
        self.wait = wait


class SweepError(Exception):
    """Some jobs of a sweep failed; the message names them. The others are done. Exit code 1."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class name if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def did_you_mean(*names: str, known: Iterable[str]) -> str:
    """` (did you mean NAME?)` for the first of `names` that resembles a known one, else empty."""
    near = [match for name in names for match in get_close_matches(name, list(known), 1)]
    return f" (did you mean {near[0]}?)" if near else ""
