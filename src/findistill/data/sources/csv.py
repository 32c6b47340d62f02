"""A text file with one row per line and a delimiter between cells."""

from findistill.data.config import FileData
from findistill.data.delimited import read_csv
from findistill.data.locations import own_path
from findistill.data.rows import Source
from findistill.data.user_files import from_file, layout


def read(config: FileData) -> Source:
    return from_file(config, read_csv(own_path(config), config.encoding, layout(config)))
