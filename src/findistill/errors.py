"""The one error class for mistakes a user can mend."""


class UserError(Exception):
    """A mistake in the configuration, the data or the surroundings, worded for the person who made it.

    The message is one or two lines: what is wrong (config key, file, row or column, and the value) and what to do.
    The application prints it without a traceback and exits with code 2; `HYDRA_FULL_ERROR=1` shows the trace.
    """


class SweepError(Exception):
    """Some jobs of a sweep failed; the message names them. The others are done. Exit code 1."""
