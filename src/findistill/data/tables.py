"""Reading tables strictly, as one dict a row: an error names the file, the row and the value."""

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

from findistill.errors import UserError

csv.field_size_limit(2**31 - 1)  # posts can be longer than csv's default of 128 KB


def read_csv(path: Path, encoding: str = "utf-8") -> list[dict[str, Any]]:
    """All cells as text, empty ones as ''; a cell such as `NA` stays what it is.

    Raises:
        UserError: no such file, not in this encoding, no header, no rows, a row with too many or too few cells, an open quote.
    """
    reader = csv.reader(_content(path, encoding), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise UserError(f"{path}: the file is empty; a header line with column names is needed")
        if len(set(header)) < len(header):
            raise UserError(f"{path}: a column name occurs twice in the header: {', '.join(header)}")
        rows = []
        for row in filter(None, reader):
            if len(row) != len(header):
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(row)} cells where the header has {len(header)}; "
                    'texts that hold a comma need quotes ("...")'
                )
            rows.append(dict(zip(header, row, strict=True)))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not valid CSV ({error}); check the quotes") from error
    return _not_empty(path, rows)


def read_jsonl(path: Path, encoding: str = "utf-8") -> list[dict[str, Any]]:
    """One JSON object a line, blank lines skipped.

    Raises:
        UserError: no such file, not in this encoding, a line that is not a JSON object, no rows.
    """
    rows = []
    for number, line in enumerate(_content(path, encoding), 1):
        if not line.strip():
            continue
        at = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{at}: not JSON ({error.msg}, column {error.colno}): {line.strip()[:60]}") from error
        if not isinstance(row, dict):
            raise UserError(f'{at}: an object such as {{"text": ...}} is needed, not {line.strip()[:60]}')
        rows.append(row)
    return _not_empty(path, rows)


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """Raises UserError where there is no such file, it is not Parquet, or it has no rows."""
    import pyarrow.parquet  # a tenth of a second, and planning imports this module

    _check_file(path)
    try:
        return _not_empty(path, pyarrow.parquet.read_table(path).to_pylist())
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error


def as_text(cell: Any) -> str:
    """A cell as text, whole numbers without a decimal point (a column of integers with gaps comes as floats)."""
    if is_missing(cell):
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def is_missing(cell: Any) -> bool:
    return cell is None or cell != cell  # NaN and NaT alone differ from themselves


def _not_empty(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not rows:
        raise UserError(f"{path}: no rows")
    return rows


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}; check data.path")


def _content(path: Path, encoding: str) -> StringIO:
    _check_file(path)
    content = path.read_bytes()
    try:
        text = content.decode(encoding)
    except LookupError:
        raise UserError(f"data.encoding={encoding}: unknown; utf-8, latin-1 and cp1252 are common") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}, byte {error.start}: 0x{content[error.start]:02x} is not {encoding}; "
            "set data.encoding (latin-1 and cp1252 are common)"
        ) from error
    # A byte order mark, as spreadsheets write it, would become a part of the first column's name.
    return StringIO(text.removeprefix("\ufeff"), newline="")
