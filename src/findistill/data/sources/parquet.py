"""A Parquet file, or a folder of them."""

from findistill.core.step import load
from findistill.data.config import FileData
from findistill.data.locations import own_path
from findistill.data.rows import Source
from findistill.data.user_files import from_file


def read(config: FileData) -> Source:
    rows, names = load("findistill.data.parquet_files:read_parquet")(own_path(config))
    return from_file(config, rows, names=names)
