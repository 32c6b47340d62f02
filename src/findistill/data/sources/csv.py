"""A text file with one row per line and a delimiter between cells."""

from findistill.data.config import FileData
from findistill.data.delimited import read_csv
from findistill.data.formulas import unquoted
from findistill.data.locations import own_path
from findistill.data.rows import Source
from findistill.data.user_files import from_file, layout


def read(config: FileData) -> Source:
    rows = read_csv(own_path(config), config.encoding, layout(config))
    return from_file(config, [{name: unquoted(cell) for name, cell in row.items()} for row in rows])
