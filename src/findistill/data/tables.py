"""Reading tables strictly: what is wrong with a file is said with its name, the row and the value."""

import codecs
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from findistill.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

csv.field_size_limit(2**31 - 1)  # posts can be longer than csv's default of 128 KB


def read_csv(path: Path, encoding: str = "utf-8") -> "pd.DataFrame":
    """All columns as text, empty cells as ''; a cell such as `NA` stays what it is.

    Raises:
        UserError: no such file, not in this encoding, no header, a row with too many or too few cells, an open quote.
    """
    import pandas as pd

    with _opened(path, encoding) as handle:
        reader = csv.reader(handle, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                raise UserError(f"{path}: the file is empty; a header line with column names is needed")
            if len(set(header)) < len(header):
                raise UserError(f"{path}: a column name occurs twice in the header: {', '.join(header)}")
            rows = []
            for row in reader:
                if row and len(row) != len(header):
                    raise UserError(
                        f"{path}, line {reader.line_num}: {len(row)} cells where the header has {len(header)}; "
                        'texts that hold a comma need quotes ("...")'
                    )
                if row:
                    rows.append(row)
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: not valid CSV ({error}); check the quotes") from error
        except UnicodeDecodeError as error:
            raise _not_decodable(path, encoding) from error
    return pd.DataFrame(rows, columns=header, dtype=object)


def read_jsonl(path: Path, encoding: str = "utf-8") -> "pd.DataFrame":
    """One JSON object a line, blank lines skipped; a key that a line lacks is None.

    Raises:
        UserError: no such file, not in this encoding, a line that is not a JSON object.
    """
    import pandas as pd

    def objects() -> Iterator[dict[str, Any]]:
        with _opened(path, encoding) as handle:
            for number, line in enumerate(handle, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(
                        f"{path}, line {number}: not JSON ({error.msg}, column {error.colno}): {line.strip()[:60]}"
                    ) from error
                if not isinstance(row, dict):
                    raise UserError(
                        f'{path}, line {number}: an object such as {{"text": ...}} is needed, not {line.strip()[:60]}'
                    )
                yield row

    try:
        return pd.DataFrame(list(objects()), dtype=object)
    except UnicodeDecodeError as error:
        raise _not_decodable(path, encoding) from error


def read_parquet(path: Path) -> "pd.DataFrame":
    """Raises UserError where there is no such file or it is not Parquet."""
    import pandas as pd
    import pyarrow

    _check_file(path)
    try:
        return pd.read_parquet(path).astype(object)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}; check data.path")


def _opened(path: Path, encoding: str) -> TextIO:
    _check_file(path)
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise UserError(f"data.encoding={encoding}: unknown; utf-8, latin-1 and cp1252 are common") from None
    # A byte order mark, as spreadsheets write it, would become a part of the first column's name.
    return path.open(encoding="utf-8-sig" if name == "utf-8" else name, newline="")


def _not_decodable(path: Path, encoding: str) -> UserError:
    """Find the first bad byte of the file; decoders that read in pieces only know its place in the piece."""
    content = path.read_bytes()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return UserError(
            f"{path}, line {line}, byte {error.start}: 0x{content[error.start]:02x} is not {encoding}; "
            "set data.encoding (latin-1 and cp1252 are common)"
        )
    return UserError(f"{path}: not {encoding}; set data.encoding")
