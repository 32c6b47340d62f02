"""Settings given in Python as the overrides that Hydra reads."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

RESERVED = ("null", "true", "false", "inf", "nan")  # words that Hydra does not read as text


def as_overrides(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Keywords as overrides: `shots={"k": 4}` is `shots.k=4`."""
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
        return "{" + ",".join(f"{key}:{quoted(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(quoted, value)) + "]"
    text = str(value)
    if re.fullmatch(r"[A-Za-z_./][\w./-]*", text) and text.lower() not in RESERVED:
        return text
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", text) + "'"


def plain_keys(mapping: Mapping[Any, Any]) -> bool:
    """Whether Hydra's grammar has these keys; none may be quoted in it."""
    names = [str(name) for name in mapping]
    return all(re.fullmatch(r"[A-Za-z_][\w-]*|0|[1-9]\d*", name, re.ASCII) and name.lower() not in RESERVED for name in names)


def as_typed(key: str, mapping: Mapping[str, Any], values: Sequence[Any]) -> str:
    """`key=mapping` as one word of a shell; the list of its `values` where Hydra's grammar has no such keys.

    Example: `'evaluate.label_map={LABEL_0: negative, LABEL_1: positive}'`.
    """
    pairs = ", ".join(f"{name}: {quoted(value)}" for name, value in mapping.items())
    word = f"{key}={{{pairs}}}" if plain_keys(mapping) else f"{key}={quoted(list(values))}"
    return shlex.quote(word) if "'" not in word or set(word) & set('"$`\\!') else f'"{word}"'


def typed(key: str, value: Any) -> str:
    """An override as one types it in a shell, for the remedy of a message."""
    if isinstance(value, Mapping) and not plain_keys(value):
        # Hydra's grammar has no quotes around keys: the whole map is a text, in YAML.
        value = yaml.safe_dump(dict(value), default_flow_style=True, allow_unicode=True, width=10**6).strip()
    override = f"{key}={quoted(value)}"
    if re.fullmatch(r"[\w.=\[\],/+-]+|[\w.={}:/+-]+", override, re.ASCII):  # a shell expands {a,b}
        return override
    return f'"{override}"' if not re.search(r'["$`\\!]', override) else shlex.quote(override)
