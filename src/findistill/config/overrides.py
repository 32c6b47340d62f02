"""Settings given in Python as the overrides that Hydra reads."""

import re
from collections.abc import Mapping
from typing import Any


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
    if re.fullmatch(r"[A-Za-z_./][\w./-]*", text) and text.lower() not in ("null", "true", "false", "inf", "nan"):
        return text
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", text) + "'"
