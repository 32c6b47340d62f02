"""Excel workbooks. Imported only when one is read."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import openpyxl

from findistill.data.cells import is_missing
from findistill.data.delimited import Layout, as_rows
from findistill.data.text_files import check_file, refuse_other_formats
from findistill.errors import UserError


def read_excel(path: Path, sheet: str | None, layout: Layout) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of one sheet, values of formulas as Excel last computed them; and notes for the data card.

    Args:
        sheet: its name, or its number from 1; None: the first.

    Raises:
        UserError: no such file or sheet, not a workbook, no rows, no header.
    """
    check_file(path)
    content = path.read_bytes()
    if not content.startswith(b"PK\x03\x04"):
        refuse_other_formats(path, content)
        group = "jsonl" if content.lstrip()[:1] in (b"{", b"[") else "csv"
        raise UserError(f"{path}: not an Excel workbook (.xlsx); for a text file use data={group}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # styles that openpyxl does not know
            book = openpyxl.load_workbook(BytesIO(content), read_only=True, data_only=True)
            name = _sheet(path, book.sheetnames, sheet)
            cells = [list(row) for row in book[name].iter_rows(values_only=True)]
    except UserError:
        raise
    except Exception as error:  # many kinds, depending on the archive's content
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(f"{path}: cannot be read as an Excel workbook ({why})") from error
    rows = [row for row in cells if not all(is_missing(cell) or str(cell).strip() == "" for cell in row)]
    if not rows:
        raise UserError(f"{path}, sheet {name!r}: no rows; the sheets are {', '.join(book.sheetnames)} (data.sheet)")
    width = len(layout.columns) if layout.columns else max(_used(row) for row in rows)
    for number, row in enumerate(rows, 1):
        if _used(row) > width:
            raise UserError(f"{path}, sheet {name!r}, row {number}: {_used(row)} cells where data.columns has {width}")
    table = as_rows(path, [[*row, *[None] * width][:width] for row in rows], layout)
    others = f"read from the sheet {name!r}, the first of {len(book.sheetnames)} (data.sheet)"
    return table, [others] if sheet is None and len(book.sheetnames) > 1 else []


def _used(row: list[Any]) -> int:
    return max((number for number, cell in enumerate(row, 1) if not is_missing(cell)), default=0)


def _sheet(path: Path, names: list[str], sheet: str | None) -> str:
    if sheet is None:
        return names[0]
    if sheet in names:
        return sheet
    if sheet.isdecimal() and 1 <= int(sheet) <= len(names):
        return names[int(sheet) - 1]
    raise UserError(f"data.sheet={sheet}: {path} has no such sheet; available: {', '.join(names)}")
