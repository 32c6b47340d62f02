"""JSON: one object per line, or an array of objects, as annotation tools and pandas write them."""

from findistill.data.config import FileData
from findistill.data.json_rows import read_jsonl
from findistill.data.locations import own_path
from findistill.data.rows import Source
from findistill.data.user_files import from_file


def read(config: FileData) -> Source:
    return from_file(config, read_jsonl(own_path(config), config.encoding, config.text_column))
