"""Error messages in one or two lines, and exit codes."""

import errno
import logging
import os
import re
import sys
from typing import NoReturn

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from findistill.config.fields import without_secrets
from findistill.config.messages import message
from findistill.core import termination
from findistill.errors import SweepError, UserError

log = logging.getLogger("findistill")

# Errors of the file system, not of the program.
PLACES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EEXIST)


def exit_with(error: BaseException, trace: bool) -> NoReturn:
    """Print the error's message and exit, or re-raise an error that the user cannot fix.

    Exit codes: 1, a job of a sweep failed; 2, a mistake in the command or its data; 130, interrupted; 143,
    terminated.
    """
    termination.acknowledge()
    # An interrupted library may raise another error instead.
    if isinstance(error, KeyboardInterrupt) or termination.requested():
        if trace:
            log.error("", exc_info=True)
        termination.say()
        sys.exit(termination.EXIT_CODE if termination.requested() else 130)
    if isinstance(error, SweepError | UserError):
        _exit(str(error), 1 if isinstance(error, SweepError) else 2, trace)
    if isinstance(error, HydraException | OmegaConfBaseException):
        _exit(message(error), 2, trace)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        _exit(f"{mark.name}: line {mark.line + 1}: invalid YAML: {error.problem}", 2, trace)
    if (number := _system_error(error)) in PLACES:
        name = getattr(error, "filename", None)
        remedy = "Free some space" if number in (errno.ENOSPC, errno.EDQUOT) else "Check the path and its permissions"
        _exit(f"{f'{name}: ' if name else ''}{os.strerror(number)}.\n{remedy}, or move the output: runs_dir=DIR", 2, trace)
    raise error


def _exit(text: str, code: int, trace: bool) -> NoReturn:
    if trace:
        log.error("", exc_info=True)
    sys.stderr.write(f"findistill: {without_secrets(text)}\n")
    sys.exit(code)


def _system_error(error: BaseException) -> int:
    """The errno of an error, 0 if it has none."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    # safetensors and tokenizers only have it in the message, numpy only the number of items written.
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number else errno.ENOSPC if re.fullmatch(r"\d+ requested and \d+ written", str(error)) else 0
