"""One place for what a setting may be: choices, bounds, and whether it can change a result, on the dataclass field itself."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from omegaconf import AnyNode, DictConfig, OmegaConf, StringNode

PASSWORD = re.compile(r"//[^/\s'\"]*@")  # user and password inside an address: no part of any result
KEY = r"(?:api[-_]?key|access[-_]?key|auth[-_]?key|key|token|access[-_]?token|secret|password|passwd|pwd|signature|sig)"
QUERY = re.compile(rf"([?&;]{KEY}=)[^&#\s'\"]+", re.IGNORECASE)  # a key inside an address
SECRET_NAME = re.compile(rf"(?:.*[-_.])?{KEY}|authorization", re.IGNORECASE)  # of settings that take a secret itself
HIDDEN = "***"
CONSTRAINTS = "findistill"  # the key of a field's metadata


def without_secrets(value: Any) -> Any:
    """Plain values with `***` for users and passwords inside addresses, keys in their queries, and settings named like a key."""
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
    """What a setting allows besides its type. A value of None (not set) is always allowed.

    Attributes:
        choices: the values it may have; for a list, each of its values.
        ge, gt, le, lt: bounds of a number; for a list, of each of its numbers.
        meaning: what the number is, for the error: "a share of the rows".
        pattern: a regular expression that the whole of a text must match; `meaning` words the error.
        distinct: a list that is not empty and has no value twice.
        names: what a text or a list of texts refers to: `data`, a data set with settings (`headlines limit=20000`), or
            `overrides`, settings as on the command line (`prompt=cot shots.k=6`). `config.expand` makes nodes of them.
        runtime_only: it says how or where to compute and can change no result: no part of any key.
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
    """The constraints of a field; none for one that has no metadata or does not exist."""
    return next((f.metadata.get(CONSTRAINTS, Constraints()) for f in fields(schema) if f.name == name), Constraints())


def declares(section: Any, name: str) -> bool:
    """Whether the schema of a section says that it is so: a `ClassVar[bool]` of the dataclass, or a property of it.

    Example: `declares(config.llm, "in_process")`, `declares(config.data, "has_labels")`.

    Raises:
        AttributeError: the schema says nothing of that name.
    """
    schema = OmegaConf.get_type(section) if OmegaConf.is_config(section) else type(section)
    declaration = getattr(schema, name)
    return bool(declaration.fget(section) if isinstance(declaration, property) and declaration.fget else declaration)


def result_settings(section: Any, *, references: bool = False) -> Any:
    """The settings of a section that can change a result, as plain values: without `runtime_only` ones, at any depth.

    Args:
        section: a structured config node, a dataclass instance, or plain values, which are returned as they are.
        references: with settings that name another configuration (`shots.source`). Steps leave them out: what they name is
            a parent, with a key of its own.
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
