"""An Excel workbook, `.xlsx`."""

from findistill.core.step import load
from findistill.data.config import FileData
from findistill.data.locations import own_path
from findistill.data.rows import Source
from findistill.data.user_files import from_file, layout


def read(config: FileData) -> Source:
    rows, notes = load("findistill.data.workbook:read_excel")(own_path(config), config.sheet, layout(config))
    return from_file(config, rows, notes=notes)
