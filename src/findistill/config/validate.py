"""Checks of a composed configuration, before anything heavy is loaded: each value by its field, then rules between fields.

The constraints of a value are on its field (`config.fields.setting`). Rules between fields are in the `rules.py` of the
package that they concern, registered for their stages with `@rule`.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from math import isinf
from operator import ge, gt, le, lt
from re import fullmatch
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from findistill.config.fields import (
    CONTAINERS,
    UNCONSTRAINED,
    Constraints,
    constraints,
    is_missing,
    is_reference,
    nodes,
    schema_of,
    unresolved,
    value_of,
    walk,
)
from findistill.config.groups import group_options
from findistill.config.overrides import words_of
from findistill.config.shared import once
from findistill.errors import UserError, did_you_mean

LISTS = (ListConfig, list, tuple)
OF_STUDIES = ("report", "status")  # stages that only read a study's folder

Part = tuple[str, DictConfig, Any]  # the key of a part of a configuration, its node and its schema
Rule = Callable[[Any], Iterator[str]]

_rules: dict[str, tuple[tuple[str, ...], Rule]] = {}


def rule(*stages: str) -> Callable[[Rule], Rule]:
    """Register a generator of messages, one for each mistake in a configuration, for `stages`.

    Without stages it applies to all of them except those in `OF_STUDIES`. Its argument is the complete typed
    configuration, whose values have been checked by their fields.
    """

    def register(check: Rule) -> Rule:
        _rules[f"{check.__module__}.{check.__qualname__}"] = stages, check
        return check

    return register


def validate(config: Any, *, rules: bool = True) -> None:
    """Raise one `UserError` with a line for each mistake in `config` (three at most).

    Keys are checked first, then values, then rules: each of these assumes that the one before passed. Rules concern the
    needs of a stage and may be left out. The configuration from a run's config.yaml has no types and is not checked again.
    """
    if not is_dataclass(OmegaConf.get_type(config)):
        return
    for problems in (unknown_keys(config), wrong_values(config), broken_rules(config) if rules else ()):
        if lines := [*problems]:
            raise UserError("\n".join(lines[:3]))


def unknown_keys(config: Any) -> Iterator[str]:
    """Settings added by `+`, which nothing would read, or removed by `~`, which are needed.

    A schema with `further_keys: ClassVar[bool] = True` allows added ones; rules check them.
    """
    return _problems(config, _keys)


def wrong_values(config: Any) -> Iterator[str]:
    """Values that violate their field's constraints."""
    return _problems(config, _values)


def _problems(config: Any, check: Callable[[Part], Iterator[str]]) -> Iterator[str]:
    """A message for each problem that `check` finds in a part of the configuration."""
    if schema := schema_of(config):
        yield from check(("", config, schema))
    for name, section in nodes(config).items():
        yield from _problems_below(section, name, check)


@once
def _problems_below(section: Any, key: str, check: Callable[[Part], Iterator[str]]) -> tuple[str, ...]:
    return tuple(problem for part in sections(section, key) for problem in check(part))


def _keys(part: Part) -> Iterator[str]:
    key, node, schema = part
    prefix = f"{key}." if key else ""
    declared, present = {field.name for field in fields(schema)}, {str(name) for name in node}
    if not getattr(schema, "further_keys", False):
        yield from (f"{prefix}{name}: no such setting; nothing would read it" for name in sorted(present - declared))
    for name in sorted(declared - present):
        yield f"{prefix}{name} was removed, but it is required: omit ~{prefix}{name}"


def _values(part: Part) -> Iterator[str]:
    key, node, schema = part
    for name, child in nodes(node).items():
        limits = constraints(schema, name)
        if is_missing(child) or (limits is UNCONSTRAINED and not is_reference(child)):
            continue
        if message := wrong_value(f"{key}.{name}" if key else name, value_of(child), limits):
            yield message


def broken_rules(config: Any) -> Iterator[str]:
    stage = config.stage.name
    for stages, check in _rules.values():
        if stage in stages or (not stages and stage not in OF_STUDIES):
            yield from check(config)


def sections(node: Any, key: str = "") -> Iterator[Part]:
    """Every part of a configuration that has a schema: its key, its node and the dataclass, outermost first."""
    content = node._content if type(node) in CONTAINERS else None
    if isinstance(content, dict) and (schema := schema_of(node)):
        yield key, node, schema
    for name, child in content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ():
        if type(child) in CONTAINERS:
            yield from _sections(child, f"{key}.{name}" if key else str(name))


@once
def _sections(node: Any, key: str) -> tuple[Part, ...]:
    return tuple(sections(node, key))


def missing(config: Any, *names: str) -> Iterator[str]:
    """A message for each mandatory setting without a value in the sections `names`."""
    for section in names:
        for key in _missing(config[section], section):
            yield f"{key} is not set; {section}={config[section].name} needs {key}=..."


@once
def _missing(section: Any, key: str) -> list[str]:
    return sorted(key for key, value in walk(unresolved(section), key) if value == "???")


def wrong_value(key: str, value: Any, limits: Constraints) -> str:
    """What is wrong with the value of a setting; empty if it is valid or not set."""
    if value is None or limits is UNCONSTRAINED:
        return ""
    is_list = type(value) in LISTS
    values = list(value) if is_list else [value]
    repeats = is_list and limits.distinct and (not values or len(set(values)) < len(values))
    each_once = ", each once" if limits.distinct else ""
    allowed = [str(choice) for choice in limits.choices]
    wrong = [str(one) for one in values if allowed and str(one) not in allowed]
    if wrong or (repeats and allowed):
        number = "one or more" if is_list else "one"
        remedy = f"choose {number} of {', '.join(allowed)}{each_once}{did_you_mean(*wrong[:1], known=allowed)}"
        return f"{_assignment(key, value)}: {remedy}"
    if repeats:
        return f"{_assignment(key, value)}: give one or more values{each_once}"
    for one in values:
        if limits.pattern and not fullmatch(limits.pattern, str(one)):
            return f"{key}={one!r} is not {limits.meaning}"
        if limits.names == "data" and one != "" and (message := unknown_data_set(one)):
            return f"{key}={one}: {message}"
        if isinstance(one, float) and isinf(one):
            return f"{_assignment(key, value)} must be finite"
        if isinstance(one, int | float) and not isinstance(one, bool) and not _within(one, limits):
            return f"{_assignment(key, value)} {_bounds(limits)}"
    return ""


def _assignment(key: str, value: Any) -> str:
    return f"{key}=[{','.join(map(str, value))}]" if type(value) in LISTS else f"{key}={value}"


def unknown_data_set(words: Any) -> str:
    """A message if the first of `words` is not the name of a data set, else empty; a `data` section is always accepted."""
    if isinstance(words, DictConfig):
        return ""
    if not isinstance(words, str):
        return "must be a data set: a name such as 'tfns', optionally with settings, 'tfns limit=500'"
    names, name = group_options("data"), (words_of(words) or [""])[0]
    return "" if name in names else f"no such data set{did_you_mean(name, known=names)}; available: {', '.join(names)}"


def _within(value: float, limits: Constraints) -> bool:
    bounds = ((limits.ge, ge), (limits.gt, gt), (limits.le, le), (limits.lt, lt))
    return all(bound is None or compare(value, bound) for bound, compare in bounds) and value == value  # NaN is no number


def _bounds(limits: Constraints) -> str:
    """The rest of the error message that begins with a setting and its value."""
    low = "" if limits.ge is None else f"at least {limits.ge:g}"
    low = low if limits.gt is None else f"above {limits.gt:g}"
    high = "" if limits.le is None else f"at most {limits.le:g}"
    high = high if limits.lt is None else f"below {limits.lt:g}"
    allowed = [*filter(None, (low, high))]
    return f"is not {limits.meaning}: {', '.join(allowed)}" if limits.meaning else f"must be {' and '.join(allowed)}"
