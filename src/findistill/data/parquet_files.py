"""Parquet files. Imported only when one is read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from findistill.core.step import load
from findistill.data.text_files import refuse_other_formats
from findistill.errors import UserError

SAVED = ("state.json", "dataset_dict.json")  # in a folder that `save_to_disk` wrote


def read_parquet(path: Path) -> tuple[list[dict[str, Any]], Mapping[str, list[str]]]:
    """The rows of a Parquet file, or of a folder of them as Spark writes it; and the class names of columns with class numbers.

    Class names come from the features that `datasets` stores in a file.

    Raises:
        UserError: there is no such file, it is not Parquet, or it has no rows.
    """
    check_parquet(path)
    with reading(path):
        table = pa.parquet.read_table(path)
        table.validate(full=True)  # damaged offsets would crash the process
        rows = table.to_pylist()
    if not rows:
        raise UserError(f"{path}: no rows")
    named = b"huggingface" in (table.schema.metadata or {})
    return rows, load("findistill.data.hugging_face:names_in_schema")(table.schema) if named else {}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert errors of pyarrow while it reads a file to UserError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as Parquet ({str(error).strip().partition(chr(10))[0][:160]})") from error


def check_parquet(path: Path) -> None:
    """Raise UserError if `path` is neither a folder of Parquet files nor a file that starts like one."""
    if path.is_file():
        with path.open("rb") as handle:
            start = handle.read(16)
        if not start.startswith(b"PAR1"):
            refuse_other_formats(path, start)
    elif not path.is_dir():
        raise UserError(f"{path}: no such file; check data.path")
    elif any((path / name).is_file() for name in SAVED):
        raise UserError(f"{path}: a folder written by datasets.save_to_disk; use data=hub")
