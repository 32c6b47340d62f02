"""Checks of a composed configuration, before anything heavy is loaded: each value by its field, then rules between fields.

The constraints of a value are on its field (`config.fields.setting`). Rules between fields are in the `rules.py` of the
package that they concern, registered for their stages with `@rule`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from operator import ge, gt, le, lt
from re import fullmatch
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from findistill.config.compose import group_options
from findistill.config.fields import Constraints, constraints
from findistill.errors import UserError, did_you_mean

OF_STUDIES = ("report", "status")  # stages that only read a study's folder

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
    for check in (unknown_keys, wrong_values, *([broken_rules] if rules else [])):
        if problems := [*check(config)]:
            raise UserError("\n".join(problems[:3]))


def unknown_keys(config: DictConfig) -> Iterator[str]:
    """Settings added by `+`, which nothing would read, or removed by `~`, which are needed.

    A schema with `further_keys: ClassVar[bool] = True` allows added ones; rules check them.
    """
    for key, node, schema in sections(config):
        prefix = f"{key}." if key else ""
        declared, present = {field.name for field in fields(schema)}, {str(name) for name in node}
        if not getattr(schema, "further_keys", False):
            yield from (f"{prefix}{name}: no such setting; nothing would read it" for name in sorted(present - declared))
        for name in sorted(declared - present):
            yield f"{prefix}{name} was removed, but it is required: omit ~{prefix}{name}"


def wrong_values(config: DictConfig) -> Iterator[str]:
    """Values that violate their field's constraints."""
    for key, node, schema in sections(config):
        for field in fields(schema):
            name = f"{key}.{field.name}" if key else field.name
            value = None if OmegaConf.is_missing(node, field.name) else node[field.name]
            if message := wrong_value(name, value, constraints(schema, field.name)):
                yield message


def broken_rules(config: Any) -> Iterator[str]:
    for stages, check in _rules.values():
        if config.stage.name in stages or (not stages and config.stage.name not in OF_STUDIES):
            yield from check(config)


def sections(node: Any, key: str = "") -> Iterator[tuple[str, DictConfig, Any]]:
    """Every part of a configuration that has a schema: its key, its node and the dataclass, outermost first."""
    if not isinstance(node, DictConfig | ListConfig) or node._is_none() or node._is_missing() or node._is_interpolation():
        return
    if isinstance(node, DictConfig) and is_dataclass(schema := OmegaConf.get_type(node)):
        yield key, node, schema
    names: Iterable[Any] = node if isinstance(node, DictConfig) else range(len(node))
    for name in names:
        yield from sections(node._get_node(name), f"{key}.{name}" if key else str(name))


def missing(config: Any, *names: str) -> Iterator[str]:
    """A message for each mandatory setting without a value in the sections `names`."""
    for section in names:
        for key in sorted(OmegaConf.missing_keys(config[section])):  # full keys, from the root
            yield f"{key} is not set; {section}={config[section].name} needs {key}=..."


def wrong_value(key: str, value: Any, limits: Constraints) -> str:
    """What is wrong with the value of a setting; empty if it is valid or not set."""
    if value is None:
        return ""
    is_list = isinstance(value, ListConfig | list | tuple)
    values = list(value) if is_list else [value]
    text = f"{key}=[{','.join(map(str, values))}]" if is_list else f"{key}={value}"
    repeats = is_list and limits.distinct and (not values or len(set(values)) < len(values))
    each_once = ", each once" if limits.distinct else ""
    allowed = [str(choice) for choice in limits.choices]
    wrong = [str(one) for one in values if allowed and str(one) not in allowed]
    if wrong or (repeats and allowed):
        number = "one or more" if is_list else "one"
        return f"{text}: choose {number} of {', '.join(allowed)}{each_once}{did_you_mean(*wrong[:1], known=allowed)}"
    if repeats:
        return f"{text}: give one or more values{each_once}"
    for one in values:
        if limits.pattern and not fullmatch(limits.pattern, str(one)):
            return f"{key}={one!r} is not {limits.meaning}"
        if limits.names == "data" and one != "" and (message := unknown_data_set(one)):
            return f"{key}={one}: {message}"
        if isinstance(one, int | float) and not isinstance(one, bool) and not _within(one, limits):
            return f"{text} {_bounds(limits)}"
    return ""


def unknown_data_set(words: Any) -> str:
    """A message if the first of `words` is not the name of a data set, else empty; a `data` section is always accepted."""
    if isinstance(words, DictConfig):
        return ""
    if not isinstance(words, str):
        return "must be a data set: a name such as 'tfns', optionally with settings, 'tfns limit=500'"
    names, name = group_options("data"), (words.split() or [""])[0]
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
