"""Conversion of Python values to Hydra overrides, and settings that hold several overrides."""

import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import yaml

from findistill.errors import UserError

# A word of a setting: spaces do not end it in quotes or in one level of brackets.
WORD = re.compile(r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\{[^{}]*\}|\[[^\[\]]*\]|\S)+""")
RESERVED = ("null", "true", "false", "inf", "nan")  # words that Hydra does not parse as strings


def as_overrides(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Keyword arguments as overrides: `shots={"k": 4}` becomes `shots.k=4`."""
    words = []
    for name, value in settings.items():
        nested = isinstance(value, Mapping) and all(re.fullmatch(r"[A-Za-z_]\w*", str(key)) for key in value)
        words += as_overrides(value, f"{prefix}{name}.") if nested else [f"{prefix}{name}={quoted(value)}"]
    return words


def quoted(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {quoted(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(quoted, value)) + "]"
    text = str(value)
    if re.fullmatch(r"[A-Za-z_./][\w./-]*", text) and text.lower() not in RESERVED:
        return text
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", text) + "'"


def plain_keys(mapping: Mapping[Any, Any]) -> bool:
    """Whether Hydra's grammar allows all these keys; it has no quoted keys."""
    names = [str(name) for name in mapping]
    return all(re.fullmatch(r"[A-Za-z_][\w-]*|0|[1-9]\d*", name, re.ASCII) and name.lower() not in RESERVED for name in names)


def typed(key: str, value: Any) -> str:
    """An override quoted for a shell, to suggest in a message: `'evaluate.label_map={up: positive, down: negative}'`.

    A mapping with keys that Hydra's grammar does not allow is written as a YAML string; `mapping_of` parses it.
    """
    if isinstance(value, Mapping) and not plain_keys(value):
        value = yaml.safe_dump(dict(value), default_flow_style=True, allow_unicode=True, width=10**6).strip()
    override = f"{key}={quoted(value)}"
    if re.fullmatch(r"[\w.=\[\],/+-]+", override, re.ASCII):
        return override
    return f'"{override}"' if "'" in override and not re.search(r'["$`\\!]', override) else shlex.quote(override)


def swept_settings(params: Any) -> list[str]:
    """`hydra.sweeper.params` as overrides; a null takes a setting out of an experiment's sweep.

    Raises:
        UserError: it is not a mapping.
    """
    if not isinstance(params or {}, Mapping):
        raise UserError("hydra.sweeper.params must be a mapping, such as {seed: '0,1'}")
    return [f"{key}={value}" for key, value in (params or {}).items() if value is not None]


def mapping_of(value: Any) -> Any:
    """The mapping in a setting, parsed if it is a YAML or JSON string; any other value is returned unchanged."""
    if isinstance(value, str):
        with suppress(yaml.YAMLError):
            read = yaml.load(value, yaml.BaseLoader)
            return {key: None if text == "null" else text for key, text in read.items()} if isinstance(read, dict) else value
    return value


def words_of(setting: str) -> list[str]:
    """The words of a setting such as `prompt=cot 'llm.where={model: gpt-4}'`, without a word's outer quotes."""
    return [word[1:-1] if re.fullmatch(r"'[^']*'|\"[^\"]*\"", word) else word for word in WORD.findall(setting)]


def within(key: str, names: Iterable[str]) -> bool:
    """Whether a dotted key is one of these sections or settings, or inside one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dict of dotted keys; lists are values."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        key = f"{prefix}{name}"
        if isinstance(inner, Mapping) and inner:
            flat.update(flatten(inner, f"{key}."))
        else:
            flat[key] = inner
    return flat
