"""Cell values: lookup by dotted name, conversion to text, conversion to one label."""

import ast
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

DEPTH = 8  # levels of nesting in listed names


class SeveralLabelsError(ValueError):
    """A cell that holds more than one label; the argument is the list of them."""


def lookup(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or of a field inside it: `data.text`, `annotations.0.result.value.choices`.

    Lists are traversed: the result is their only value, or a list of all values. None if there is no such value.
    """
    return row[name] if name in row else _inside(row, name.split("."))


def _inside(value: Any, parts: list[str]) -> Any:
    if not parts:
        return value
    if isinstance(value, Mapping):
        for length in range(len(parts), 0, -1):  # a name may hold dots itself
            if (key := ".".join(parts[:length])) in value:
                return _inside(value[key], parts[length:])
        return None
    if not isinstance(value, list):
        return None
    if parts[0].isdecimal():
        return _inside(value[int(parts[0])], parts[1:]) if int(parts[0]) < len(value) else None
    fields = [_inside(element, parts) for element in value if isinstance(element, Mapping)]
    flat = [one for each in fields for one in (each if isinstance(each, list) else [each]) if not is_missing(one)]
    if not flat and any(isinstance(each, list) for each in fields):  # empty lists: the field exists, but has no value
        return []
    return flat[0] if len(flat) == 1 else flat or None


def names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """All names that `lookup` can resolve in some row, in order of first occurrence."""
    return list(dict.fromkeys(name for row in rows for name in _names(row, "", DEPTH)))


def _names(value: Any, prefix: str, depth: int) -> Iterator[str]:
    if isinstance(value, Mapping) and value and depth:
        for key, inner in value.items():
            yield from _names(inner, f"{prefix}.{key}" if prefix else str(key), depth - 1)
    elif isinstance(value, list) and depth and any(isinstance(element, Mapping) for element in value):
        for element in value:
            if isinstance(element, Mapping):
                yield from _names(element, prefix, depth - 1)
    else:
        yield prefix


def as_text(cell: Any) -> str:
    """A cell as text, whole numbers without a decimal point (an integer column with gaps arrives as floats)."""
    if is_missing(cell):
        return ""
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace").strip()
    whole = isinstance(cell, float | Decimal) and math.isfinite(cell) and cell == int(cell)
    return str(int(cell) if whole else cell).strip()


def as_label(cell: Any) -> str:
    """A cell as a label, '' if it has none. A list of one element is that element; `1.0` becomes `1`.

    Lists written as text (`["positive"]`) and Label Studio's `{"choices": [...]}` count as lists.

    Raises:
        SeveralLabelsError: the cell has more than one label.
        ValueError: the cell is another object or a nested list.
    """
    if isinstance(cell, str) and (cell := cell.strip())[:1] in ("[", "{") and cell[-1:] in ("]", "}"):
        cell = _parsed(cell)
    if isinstance(cell, Mapping):
        if set(cell) != {"choices"}:
            raise ValueError(f"an object with {', '.join(map(str, cell))}")
        cell = cell["choices"]
    if isinstance(cell, list | tuple):
        if any(isinstance(element, list | tuple | Mapping) for element in cell):
            raise ValueError("a list of lists or objects")
        labels = list(dict.fromkeys(label for label in map(as_label, cell) if label))
        if len(labels) > 1:
            raise SeveralLabelsError(labels)
        return labels[0] if labels else ""
    return _whole(as_text(cell))


def folded(label: str) -> str:
    """A form that is equal for labels that differ only in case, in Unicode form, or as 1 and 1.0 do."""
    return unicodedata.normalize("NFC", _whole(label)).casefold()


def _whole(number: str) -> str:
    return number.partition(".")[0] if re.fullmatch(r"[+-]?\d+\.0+", number) else number


def _parsed(text: str) -> Any:
    """The list or object written as text; the text itself if it is neither."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list | tuple | Mapping):
            return value
    return text


def is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float | Decimal) and cell != cell) or type(cell).__name__ in ("NaTType", "NAType")
