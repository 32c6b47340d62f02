"""Constraints of settings, declared on the dataclass fields: choices, bounds, and whether a setting can change a result."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, Literal

from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf, StringNode

from findistill.config.copies import ComposedConfig, Template
from findistill.config.shared import once

PASSWORD = re.compile(r"//[^/\s'\"]*@")  # user and password in a URL, which cannot change a result
KEY = r"(?:api[-_]?key|access[-_]?key|auth[-_]?key|key|token|access[-_]?token|secret|password|passwd|pwd|signature|sig)"
QUERY = re.compile(rf"([?&;]{KEY}=)[^&#\s'\"]+", re.IGNORECASE)  # a key in a URL
SECRET_NAME = re.compile(rf"(?:.*[-_.])?{KEY}|authorization", re.IGNORECASE)  # settings whose value is a secret
# A pair of a mapping on the command line, `llm.extra_body={api_key: ...}`.
PAIR = re.compile(r"([\w.-]+)(['\"]?\s*:\s*)([^\s,{}][^,{}]*)")
MAY_BE_LABELS = ("key", "token", "signature", "sig")  # there
WEIGHTS = "distill.terms."  # of loss terms, among them query_key
HIDDEN = "***"
CONTAINERS = (DictConfig, ListConfig, ComposedConfig)
CONSTRAINTS = "findistill"  # the key of a field's metadata


def without_secrets(value: Any) -> Any:
    """Plain values with `***` for users, passwords and query keys in URLs, and for settings whose name looks like a secret."""
    if isinstance(value, str):
        name, assigned, rest = value.partition("=")
        if assigned and re.fullmatch(r"[+~]*[\w.@/-]+", name) and rest and _is_secret(name):  # an override
            return value if name.lstrip("+~").startswith(WEIGHTS) else f"{name}={HIDDEN}"
        if "{" in rest:
            value = PAIR.sub(_without_secret, value)
        return QUERY.sub(rf"\1{HIDDEN}", PASSWORD.sub(f"//{HIDDEN}@", value))
    if isinstance(value, Mapping):
        return {key: HIDDEN if inner and isinstance(inner, str) and _is_secret(str(key)) else without_secrets(inner)
                for key, inner in value.items()}  # fmt: skip
    return [without_secrets(inner) for inner in value] if isinstance(value, list | tuple) else value


def _without_secret(pair: re.Match[str]) -> str:
    name, between, _ = pair.groups()
    return f"{name}{between}{HIDDEN}" if _is_secret(name) and name.lower() not in MAY_BE_LABELS else pair[0]


def _is_secret(name: str) -> bool:
    return bool(SECRET_NAME.fullmatch(name.lstrip("+~").rpartition(".")[2]))


@dataclass(frozen=True)
class Constraints:
    """Constraints of a setting besides its type. None (not set) is always allowed.

    Attributes:
        choices: the allowed values; for a list, of each element.
        ge, gt, le, lt: bounds of a number; for a list, of each element.
        meaning: what the value is, for the error message: "a share of the rows".
        pattern: a regular expression that a string must fully match; the error message uses `meaning`.
        distinct: a list must not be empty, and its elements must be unique.
        names: what a string or a list of strings refers to: `data`, a data set with settings (`headlines limit=20000`), or
            `overrides`, settings as on the command line (`prompt=cot shots.k=6`). `config.expand` turns them into nodes.
        runtime_only: it controls how or where to compute and cannot change a result, so it is not part of any key.
    """

    choices: Sequence[Any] = ()
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    meaning: str = ""
    pattern: str = ""
    distinct: bool = False
    names: Literal["", "data", "overrides"] = ""
    runtime_only: bool = False


def setting(default: Any, **limits: Any) -> Any:
    """A dataclass field with `Constraints`; a list, dict or dataclass type as `default` becomes a default factory."""
    metadata = {CONSTRAINTS: Constraints(**limits)}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


UNCONSTRAINED = Constraints()


def constraints(schema: type, name: str) -> Constraints:
    """The constraints of a field; none if it has no metadata or does not exist."""
    return _constraints(schema).get(name, UNCONSTRAINED)


@cache
def _constraints(schema: type) -> dict[str, Constraints]:
    return {each.name: each.metadata[CONSTRAINTS] for each in fields(schema) if CONSTRAINTS in each.metadata}


# Planning a sweep reads every setting of every job. These functions do so from OmegaConf's nodes, in a tenth of the time that
# `section[key]`, `OmegaConf.get_type` and `OmegaConf.to_container` take.


def schema_of(node: DictConfig) -> Any:
    """The dataclass of a section; None if it has none."""
    schema = node._metadata.object_type
    return schema if is_dataclass(schema) else None


def nodes(section: DictConfig) -> dict[str, Any]:
    """Key -> node of a section, not resolved; empty for one that is null."""
    content = section._content
    return {str(key): node for key, node in content.items()} if isinstance(content, dict) else {}


def unresolved(node: Any) -> Any:
    """A configuration, or a part of one, as nested dicts and lists of plain values, with interpolations as text."""
    if type(node) not in CONTAINERS:
        return node._value()
    content = node._content  # of a container that is None, missing or an interpolation: None or its text
    if isinstance(content, dict):
        return {key: unresolved(inner) for key, inner in content.items()}
    return [unresolved(inner) for inner in content] if isinstance(content, list) else content


def resolved(node: Any) -> Any:
    """Like `unresolved`, with the values that interpolations refer to."""
    if is_reference(node):
        value = value_of(node)
        return resolved(value) if type(value) in CONTAINERS else value
    content = node._content if type(node) in CONTAINERS else None
    if isinstance(content, dict):
        return {key: resolved(inner) for key, inner in content.items()}
    return [resolved(inner) for inner in content] if isinstance(content, list) else node._value()


def walk(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All values in nested dicts and lists, including the dicts and lists themselves, with their dotted keys."""
    for name, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ():
        yield (at := f"{key}.{name}" if key else str(name)), value
        yield from walk(value, at)


def is_missing(node: Any) -> bool:
    """Whether a node is a mandatory setting without a value."""
    value = node._value()
    return isinstance(value, str) and value == "???"


def is_reference(node: Any) -> bool:
    """Whether the value of a node refers to other settings (`${seed}`)."""
    value = node._value()
    return isinstance(value, str) and "${" in value


def value_of(node: Any) -> Any:
    """The value of a node that is not missing, as reading its key would return it: resolved, containers as they are."""
    if is_reference(node):
        return node._get_parent()[node._key()]  # with an error that names the key
    value = node._value()
    return node if type(node) in CONTAINERS and value is not None else value


def defaults(section: Any) -> DictConfig:
    """A new section of the same schema with the schema's default values."""
    schema: Any = OmegaConf.get_type(section)
    node: DictConfig = _defaults(schema).copy()
    return node


@cache
def _defaults(schema: Any) -> Template:
    return Template(OmegaConf.structured(schema))


def declares(section: Any, name: str) -> bool:
    """The value of a declaration in the schema of a section: a `ClassVar[bool]` or a property of the dataclass.

    Example: `declares(config.llm, "in_process")`, `declares(config.data, "has_labels")`.

    Raises:
        AttributeError: the schema has no such declaration.
    """
    schema = OmegaConf.get_type(section) if OmegaConf.is_config(section) else type(section)
    declaration = getattr(schema, name)
    return bool(declaration.fget(section) if isinstance(declaration, property) and declaration.fget else declaration)


def result_settings(section: Any, *, references: bool = False) -> Any:
    """The settings of a section that can change a result, as plain values: without secrets and `runtime_only` settings.

    Args:
        section: a structured config node, a dataclass instance, or plain values.
        references: include settings that name another configuration (`shots.source`). Steps leave them out, since what they
            name is a parent with its own key.
    """
    return _copied(_result_settings(section, references))


@once
def _result_settings(section: Any, references: bool) -> Any:
    if is_dataclass(section) and not isinstance(section, type):
        section = OmegaConf.structured(section)
    if isinstance(section, DictConfig):
        schema, settings = schema_of(section), {}
        for key, node in nodes(section).items():
            limits = constraints(schema, key) if schema else UNCONSTRAINED
            secret = _is_secret(key) and isinstance(node, StringNode | AnyNode)
            if not secret and not limits.runtime_only and (references or not limits.names):
                settings[key] = "???" if is_missing(node) else _result_settings(value_of(node), references)
        return settings
    if OmegaConf.is_config(section) or isinstance(section, list):
        return [_result_settings(value, references) for value in section]
    if isinstance(section, str):
        return QUERY.sub("", PASSWORD.sub("//", section))
    if isinstance(section, dict):
        items = ((str(key), value) for key, value in section.items() if not (isinstance(value, str) and _is_secret(str(key))))
        return {key: _result_settings(value, references) for key, value in items}
    return section


def _copied(value: Any) -> Any:
    """A copy of plain values, which the caller may modify."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value
