"""JSON files as rows: one object per line, an array of objects, or one of the layouts in which tools write a table."""

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from findistill.data.text_files import lines, read_text
from findistill.errors import UserError

Row = dict[str, Any]


def read_jsonl(path: Path, encoding: str = "utf-8", text_column: str = "text") -> list[Row]:
    """One JSON object per line, blank lines skipped; or a single document (`table_rows`).

    Raises:
        UserError: no such file, not in this encoding, not JSON, anything but objects, no rows.
    """
    content = read_text(path, encoding).getvalue()
    if not content.strip():
        raise UserError(f"{path}: the file is empty, no rows")
    lines = [(number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    if len(lines) > 1 and (content.lstrip()[0] not in "[{" or _is_object(lines[0][1])):
        rows = [_parse(f"{path}, line {number}", line) for number, line in lines]
        for (number, line), row in zip(lines, rows, strict=True):
            if not isinstance(row, dict):
                raise _no_object(f"{path}, line {number}", line)
    else:
        rows = list(table_rows(path, _parse(str(path), content), text_column))
    if not rows:
        raise UserError(f"{path}: no rows")
    return rows


def stream_jsonl(path: Path, encoding: str = "utf-8", text_column: str = "text") -> Iterator[Row]:
    """The rows of `read_jsonl`, read line by line; only a multi-line document is read at once.

    Raises:
        UserError: as `read_jsonl`, when the faulty line is reached.
    """
    source = ((number, line) for number, line in enumerate(lines(path, encoding), 1) if line.strip())
    first, second = next(source, None), next(source, None)
    if first is None or second is None or (first[1].lstrip()[0] in "[{" and not _is_object(first[1])):
        yield from read_jsonl(path, encoding, text_column)
        return
    for number, line in chain([first, second], source):
        row = _parse(f"{path}, line {number}", line)
        if not isinstance(row, dict):
            raise _no_object(f"{path}, line {number}", line)
        yield row


def table_rows(path: Path, document: Any, text_column: str) -> Iterator[Row]:
    """The rows of a JSON document.

    An array of objects (Label Studio, Argilla, pandas' `records`), pandas' `split`, `table`, `columns` and `index`, columns
    of lists, and an object that holds one list of objects, as responses of web services do; any other object is one row.

    Raises:
        UserError: an element is not an object.
    """
    root = text_column if isinstance(document, dict) and text_column in document else text_column.partition(".")[0]
    if isinstance(document, dict) and root not in document:
        nested = [value for value in document.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        if isinstance(document.get("columns"), list) and isinstance(document.get("data"), list):
            document = [dict(zip(document["columns"], row, strict=False)) for row in document["data"] if isinstance(row, list)]
        elif document and all(isinstance(value, dict) and root in value for value in document.values()):
            document = list(document.values())
        elif with_text := [rows for rows in nested if root in rows[0]] or (nested if len(nested) == 1 else []):
            document = with_text[0]
    elif isinstance(document, dict):
        kind = type(document[root])
        columns = {name: value for name, value in document.items() if isinstance(value, kind)}
        if kind is dict and text_column == root:
            document = [{name: column.get(row) for name, column in columns.items()} for row in document[root]]
        elif kind is list and len({len(column) for column in columns.values()}) == 1:
            document = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for number, row in enumerate(document if isinstance(document, list) else [document], 1):
        if not isinstance(row, Mapping):
            raise _no_object(f"{path}, element {number}", json.dumps(row))
        yield dict(row)


def _parse(at: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text.strip() else f"column {error.colno}"
        faulty = text.split("\n")[error.lineno - 1].strip()
        raise UserError(f"{at}: not JSON ({error.msg}, {place}): {faulty[:60]}{_other(text)}") from error
    except RecursionError as error:
        raise UserError(f"{at}: nested too deeply to be read: {text.strip()[:20]}") from error
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{at}: cannot be read as JSON ({str(error).partition(';')[0]})") from error


def _other(text: str) -> str:
    return "" if text.lstrip()[:1] in ("{", "[") else "; for a file with columns use data=csv"


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return line.rstrip().endswith("}")  # an invalid line of JSONL, not the first line of a multi-line object


def _no_object(at: str, text: str) -> UserError:
    return UserError(f'{at}: expected an object such as {{"text": ...}}, got {text.strip()[:60]}')
