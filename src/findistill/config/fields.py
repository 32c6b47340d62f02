"""Constraints of settings, declared on the dataclass fields: choices, bounds, and whether a setting can change a result."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from omegaconf import AnyNode, DictConfig, OmegaConf, StringNode

PASSWORD = re.compile(r"//[^/\s'\"]*@")  # user and password in a URL, which cannot change a result
KEY = r"(?:api[-_]?key|access[-_]?key|auth[-_]?key|key|token|access[-_]?token|secret|password|passwd|pwd|signature|sig)"
QUERY = re.compile(rf"([?&;]{KEY}=)[^&#\s'\"]+", re.IGNORECASE)  # a key in a URL
SECRET_NAME = re.compile(rf"(?:.*[-_.])?{KEY}|authorization", re.IGNORECASE)  # settings whose value is a secret
HIDDEN = "***"
CONSTRAINTS = "findistill"  # the key of a field's metadata


def without_secrets(value: Any) -> Any:
    """Plain values with `***` for users, passwords and query keys in URLs, and for settings whose name looks like a secret."""
    if isinstance(value, str):
        name, assigned, rest = value.partition("=")
        if assigned and re.fullmatch(r"[+~]*[\w.@/-]+", name) and rest and _is_secret(name):  # an override
            return f"{name}={HIDDEN}"
        return QUERY.sub(rf"\1{HIDDEN}", PASSWORD.sub(f"//{HIDDEN}@", value))
    if isinstance(value, Mapping):
        return {key: HIDDEN if inner and isinstance(inner, str) and _is_secret(str(key)) else without_secrets(inner)
                for key, inner in value.items()}  # fmt: skip
    return [without_secrets(inner) for inner in value] if isinstance(value, list | tuple) else value


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


def constraints(schema: type, name: str) -> Constraints:
    """The constraints of a field; none if it has no metadata or does not exist."""
    return next((f.metadata.get(CONSTRAINTS, Constraints()) for f in fields(schema) if f.name == name), Constraints())


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
    if is_dataclass(section) and not isinstance(section, type):
        section = OmegaConf.structured(section)
    if isinstance(section, DictConfig):
        schema, settings = OmegaConf.get_type(section), {}
        for key in section:
            limits = constraints(schema, str(key)) if is_dataclass(schema) else Constraints()
            secret = _is_secret(str(key)) and isinstance(section._get_node(key), StringNode | AnyNode)
            if not secret and not limits.runtime_only and (references or not limits.names):
                missing = OmegaConf.is_missing(section, key)
                settings[str(key)] = "???" if missing else result_settings(section[key], references=references)
        return settings
    if OmegaConf.is_config(section) or isinstance(section, list):
        return [result_settings(value, references=references) for value in section]
    if isinstance(section, str):
        return QUERY.sub("", PASSWORD.sub("//", section))
    if isinstance(section, Mapping):
        items = ((str(key), value) for key, value in section.items() if not (isinstance(value, str) and _is_secret(str(key))))
        return {key: result_settings(value, references=references) for key, value in items}
    return section
