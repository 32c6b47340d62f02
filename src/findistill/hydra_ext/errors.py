"""Error messages in one or two lines: the setting, what is wrong with it, and the closest valid name. Exit codes."""

import errno
import logging
import os
import re
import shlex
import sys
from contextlib import suppress
from difflib import get_close_matches
from textwrap import fill
from typing import Any, NoReturn, cast

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from findistill.config.compose import compose_part, group_options, groups
from findistill.config.fields import without_secrets
from findistill.config.overrides import typed
from findistill.config.renames import rename_message
from findistill.core import termination
from findistill.core.step import flatten
from findistill.errors import SweepError, UserError, did_you_mean

log = logging.getLogger("findistill")

# Errors of the file system, not of the program.
PLACES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EEXIST)

# Parts of OmegaConf's messages about a wrong type, and ours.
NEEDED = {
    "to Integer": "must be an integer",
    "to Float": "must be a number",
    "to Boolean": "must be true or false",
    "not a ListConfig": "must be a list: [a,b]",
}


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
        _exit(format_hydra_error(error), 2, trace)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        _exit(f"{mark.name}: line {mark.line + 1}: invalid YAML: {error.problem}", 2, trace)
    if (number := _system_error(error)) in PLACES:
        name = getattr(error, "filename", None)
        remedy = "Free some space" if number in (errno.ENOSPC, errno.EDQUOT) else "Check the path and its permissions"
        _exit(f"{f'{name}: ' if name else ''}{os.strerror(number)}.\n{remedy}, or move the output: runs_dir=DIR", 2, trace)
    raise error


def _exit(message: str, code: int, trace: bool) -> NoReturn:
    if trace:
        log.error("", exc_info=True)
    sys.stderr.write(f"findistill: {without_secrets(message)}\n")
    sys.exit(code)


def _system_error(error: BaseException) -> int:
    """The errno of an error, 0 if it has none."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    # safetensors and tokenizers only have it in the message, numpy only the number of items written.
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number else errno.ENOSPC if re.fullmatch(r"\d+ requested and \d+ written", str(error)) else 0


def format_hydra_error(error: BaseException) -> str:
    """One or two lines for an error of Hydra or OmegaConf."""
    text = str(error)
    quoted = text.split("'")[1] if text.count("'") > 1 else ""
    cause = _first_of_omegaconf(error)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be parsed. {_with_quotes(str(error.override))}"
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if text.startswith("Ambiguous value for argument"):
        key, _, values = quoted.partition("=")
        return f"{quoted}: to sweep over values, use findistill -m ...; to set a list, use brackets: {key}=[{values}]"
    if text.startswith("Error merging override "):
        return f"{text.removeprefix('Error merging override ').strip()}: {_reason(cause) or 'cannot be set'}"
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        key = str(cause.full_key)
        where = f"{quoted}: " if text.startswith("In '") else ""  # a file
        return where + (rename_message(key) or f"{key}: no such setting.{_suggestion(key)}")
    if text.startswith("Could not"):
        return rename_message(quoted) or f"{quoted}: no such setting{' or group' if '@' in quoted else ''}.{_suggestion(quoted)}"
    if isinstance(cause, ValidationError) and text.startswith("In '"):
        return f"{quoted}: {cause.full_key}: {_reason(cause)}"
    if variable := re.search(r"Environment variable '(\w+)' not found", text):
        key = f"{cause.full_key} names" if cause is not None and cause.full_key else "a setting names"
        return f"{key} the environment variable {variable[1]}, which is not set: export {variable[1]}=..."
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Set the environment")]
    first, reason = lines[0] if lines else type(error).__name__, _reason(cause)
    return f"{first}{f' ({reason})' if reason and reason not in first else ''}"


def _with_quotes(override: str) -> str:
    """How to quote an override that Hydra's grammar rejects."""
    key, _, text = override.partition("=")
    values = [value.strip().strip("'\"") for value in text[1:-1].split(",")]
    value: Any = values if text[:1] == "[" and text[-1:] == "]" else text
    if text[:1] == "{" and text[-1:] == "}":
        with suppress(yaml.YAMLError):
            value = yaml.load(text, yaml.BaseLoader)
    remedy = typed(key, value)
    try:
        if isinstance(value, str) and text[:1] in "[{":  # a bracket that is not closed
            raise ValueError
        OverridesParser.create().parse_override(shlex.split(remedy)[0])
    except (HydraException, ValueError):
        return "Special characters need quotes: KEY='\"...\"'"
    return f"Special characters need quotes: {remedy}"


def _first_of_omegaconf(error: BaseException | None) -> OmegaConfBaseException | None:
    """The OmegaConf error that caused a Hydra error, which has the full key."""
    while error is not None and not isinstance(error, OmegaConfBaseException):
        error = error.__cause__ or error.__context__
    return error


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    names = [name for name in error.options or group_options(group) if not name.startswith("base_")]
    if not group or not names:
        return f"{group}={option}: no such option" if group else f"--config-name {option}: no such configuration"
    near = did_you_mean(option, known=names).strip(" ()?")
    return f"{group}={option}: no such option{f', {near}?' if near else '.'}\n" + fill(
        f"Available: {', '.join(names)}", 200, max_lines=2, placeholder=" and more"
    )


def _reason(cause: BaseException | None) -> str:
    first = str(cause or "").partition("\n")[0]
    return next((words for sign, words in NEEDED.items() if sign in first), first)


def _suggestion(key: str) -> str:
    GlobalHydra.instance().clear()
    settings = cast(dict[str, Any], OmegaConf.to_container(compose_part("config", (), "config"), resolve=False))
    # _target_ is never suggested
    names = [name for name in [*flatten(settings), *groups()] if not name.rpartition(".")[2].startswith("_")]
    section, _, last = key.rpartition(".")
    inside = [name for name in names if section and name.startswith(f"{section}.")]
    near = get_close_matches(key, names, 1, 0.75) or [name for name in names if name.rpartition(".")[2] == last]
    if near and (near[0] in inside or not inside):
        return f" Did you mean {near[0]}?"
    return f" {section} has: {', '.join(name.removeprefix(f'{section}.') for name in inside)}" if inside else ""
