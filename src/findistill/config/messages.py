"""Wording of Hydra's and OmegaConf's errors, in one or two lines: the setting, what is wrong with it, the closest valid name."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import Any, cast

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from findistill.config.groups import group_options, groups, no_such_option, options_with
from findistill.config.overrides import flatten, typed
from findistill.config.renames import rename_message
from findistill.errors import UserError, first_line

# Parts of OmegaConf's messages about a wrong type, and ours.
SINGLE = {"to Integer": "must be an integer", "to Float": "must be a number", "to Boolean": "must be true or false"}
NEEDED = {
    **SINGLE,
    "Cannot convert 'dict' to string": "must be a single value",
    "Cannot merge DictConfig with ListConfig": "must be a mapping of settings, not a list",
    "not a ListConfig": "must be a list: [a,b]",
}


@contextmanager
def hydra_crashes_worded() -> Iterator[None]:
    """Turn other errors that Hydra raises about a file, such as a defaults list that is none, into `UserError`."""
    try:
        yield
    except OmegaConfBaseException:  # some are ValueErrors; `message` knows them
        raise
    except (TypeError, ValueError) as error:
        raise UserError(first_line(error)) from error


def message(error: BaseException) -> str:
    """One or two lines for an error of Hydra or OmegaConf."""
    text = str(error)
    quoted = text.split("'")[1] if text.count("'") > 1 else ""
    cause = _first_of_omegaconf(error)
    where = f"{quoted}: " if text.startswith("In '") else ""  # a file
    key = str(cause.full_key or "") if cause is not None else ""
    if isinstance(error, OverrideParseException):
        return cannot_be_parsed(str(error.override))
    if isinstance(error, MissingConfigException):
        return ("" if quoted == "config" else where) + _missing_option(error)
    if isinstance(error, HydraException) and (words := _about_groups_and_signs(text, quoted)):
        return words
    if text.startswith("Error merging override "):
        override = text.removeprefix("Error merging override ").strip()
        inside = key and override.startswith(f"{key}.")
        reason = f"{key} is a single value" if inside else _reason(cause) or "cannot be set"
        several = re.fullmatch(r"(.*)=\[([^\[\]]*)\]", override) if reason in SINGLE.values() else None
        return f"{override}: {reason}{f'; to sweep over values: findistill -m {several[1]}={several[2]}' if several else ''}"
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and key:
        if where and key == quoted.partition("/")[0]:  # the name of the file's folder
            return f"{where}its settings are in no section; begin the file with # @package _global_"
        return where + no_such_setting(key, cause, quoted if where else "")
    if text.startswith("Could not"):
        return no_such_setting(quoted, cause)
    if where and cause is not None:
        return f"{where}{f'{key}: ' if key else ''}{_reason(cause)}"
    if variable := re.search(r"Environment variable '(\w+)' not found", text):
        return f"{key or 'a setting'} names the environment variable {variable[1]}, which is not set: export {variable[1]}=..."
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Set the environment")]
    first, reason = lines[0] if lines else type(error).__name__, _reason(cause)
    if error is cause:
        return f"{f'{key}: ' if key and key not in first else ''}{reason}"
    return f"{first}{f' ({reason})' if reason and reason not in first else ''}"


def _about_groups_and_signs(text: str, quoted: str) -> str:
    """The message for an override with `+`, `++` or `~`, or with several values, where it does not allow them; else empty."""
    if text.startswith("Ambiguous value for argument"):
        key, _, values = quoted.partition("=")
        return f"{quoted}: to sweep over values, use findistill -m ...; to set a list, use brackets: {key}=[{values}]"
    if without := re.search(r"remove \+ prefix: '(.*)'", text):
        return f"{quoted} is a setting already: write {without[1]}"
    if group := re.match(r"Multiple values for ([\w/@.]+)\.", text):
        return f"{group[1]} has an option already: write {group[1]}=OPTION, or in a defaults list override /{group[1]}: OPTION"
    if text.startswith("force-add of config groups"):
        return f"{quoted}: write {quoted.lstrip('+')}"
    if text.startswith("Could not delete '"):
        return f"~{quoted}: it is not chosen, so it cannot be removed"
    if other := re.search(r"The value of '.*' is (.*) and not (.*)\.$", text):
        return f"~{quoted}={other[2]}: it is {other[1]}"
    return ""


def no_such_setting(key: str, cause: OmegaConfBaseException | None, file: str = "") -> str:
    """The message for a setting that the configuration lacks: which options have it, the nearest one, or those of its section.

    Args:
        cause: the error that the access raised; if it is None, the names are not known.
        file: the option that has the setting in its file, `data/mine`.
    """
    if renamed := rename_message(key):
        return renamed
    missing = f"{key}: no such setting{' or group' if '@' in key else ''}."
    if cause is None or cause.parent_node is None:
        return missing
    settings = cast(dict[str, Any], OmegaConf.to_container(cause.parent_node._get_root(), resolve=False))
    # _target_ is never suggested
    names = [name for name in [*flatten(settings), *groups()] if not name.rpartition(".")[2].startswith("_")]
    section, _, last = key.rpartition(".")
    top, _, setting = key.partition(".")
    having = [option for option in options_with(top, setting) if f"{top}/{option}" != file] if top in groups() else []
    if having:
        return f"{missing} These have it: {top}={', '.join(having)}"
    inside = [name.removeprefix(f"{section}.") for name in names if section and name.startswith(f"{section}.")]
    sections = {name.rpartition(".")[0] for name in names} - {""}
    near = get_close_matches(key, [*names, *sections], 1, 0.75) or [name for name in names if name.rpartition(".")[2] == last]
    if near and (not inside or near[0].startswith(f"{section}.")):
        return f"{missing} Did you mean {near[0]}?"
    return f"{missing} {section} has: {', '.join(inside)}" if inside and top != "hydra" else missing


def cannot_be_parsed(override: str) -> str:
    """The message for an override that Hydra's grammar rejects: how to quote it."""
    return f"{override}: cannot be parsed. {_with_quotes(override)}"


def inside_a_list(override: str) -> str:
    """The message for an override that OmegaConf cannot set since it names something other than an item of a list."""
    return f"{override}: no such item; a list can be set as a whole: {override.partition('=')[0].rpartition('.')[0]}=[a,b]"


def _with_quotes(override: str) -> str:
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
    if not group:
        return f"--config-name {option}: no such configuration"
    return no_such_option(group, option, error.options or group_options(group))


def _reason(cause: BaseException | None) -> str:
    first = str(cause or "").partition("\n")[0]
    if value := re.search(r"is not a subclass of \w+\. value: (.*)", first):
        return f"{value[1]} is not a section; options are chosen in the defaults list"
    return next((words for sign, words in NEEDED.items() if sign in first), first)
