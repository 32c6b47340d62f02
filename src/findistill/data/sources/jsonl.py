"""A file with one JSON object a line."""

from findistill.data.config import FileData
from findistill.data.locations import own_path
from findistill.data.rows import Source
from findistill.data.tables import read_jsonl
from findistill.data.user_files import from_file


def read(config: FileData) -> Source:
    return from_file(config, read_jsonl(own_path(config), config.encoding))
