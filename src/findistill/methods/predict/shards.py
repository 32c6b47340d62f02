"""Output files, one per shard: complete or absent, and never mixed with those of another input or model."""

import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from findistill.config.overrides import typed
from findistill.core.files import read_json, replacing, write_json
from findistill.core.hashing import damaged, seal
from findistill.data.streams import json_texts
from findistill.errors import UserError

log = logging.getLogger(__name__)

RECORDS = ".findistill"  # subfolder with the job and a record of each file; readers of Parquet folders ignore it


class TableWriter(Protocol):
    def write_table(self, table: pa.Table) -> None: ...


@dataclass(frozen=True)
class Shards:
    """A folder of files that belong to one job."""

    folder: Path
    format: str

    @classmethod
    def claim(cls, folder: Path, file_format: str, job: dict[str, Any], *, own: bool) -> "Shards":
        """Take the folder, with the shards that an interrupted run of the same job wrote.

        Args:
            job: identifies the job; files of another job are never resumed.
            own: the folder is in the run folder, so shards of another job in it are removed.

        Raises:
            UserError: it is a file, or has files that are not of this job.
        """
        marker = folder / RECORDS / "job.json"
        before: dict[str, Any] = {}
        with suppress(OSError, ValueError, TypeError):
            before = dict(read_json(marker))
        if folder.is_file():
            raise UserError(f"predict.out={folder} is a file; name a new or empty folder")
        files = [path.name for path in sorted(folder.glob("*"))] if folder.is_dir() else []
        if before != job and files:
            if not own and before.get("key") != job["key"]:
                raise UserError(
                    f"predict.out={folder} has files that this job did not write ({', '.join(files[:3])}): they are from another "
                    f"input, model or setting, or unrelated.\nName a new folder: {typed('predict.out', f'{folder}-2')}"
                )
            shutil.rmtree(folder / RECORDS, ignore_errors=True)
            for shard in folder.glob("part-*.*"):
                shard.unlink()
        write_json(marker, job)
        shards = cls(folder, file_format)
        for aside in folder.glob(".part-*"):  # partial files of a killed run
            aside.unlink()
        return shards

    def path(self, shard: int) -> Path:
        return self.folder / f"part-{shard:05d}.{self.format}"

    def record(self, shard: int) -> Counter[str] | None:
        """The counts of a finished shard; None if it is missing or damaged."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            stored = read_json(self._record(shard))
            if damaged(self.folder, stored["files"]) is None:
                return Counter(stored["counts"])
        return None

    @contextmanager
    def writing(self, shard: int, schema: pa.Schema, counts: Counter[str]) -> Iterator[TableWriter]:
        """A writer of the shard's rows; the file and its counts are stored if the block ends without an error."""
        path = self.path(shard)
        with replacing(path) as aside:
            open_writer = pa.parquet.ParquetWriter if self.format == "parquet" else _CsvWriter
            with open_writer(aside, schema) as writer:
                yield writer
        write_json(self._record(shard), {"counts": counts, "files": seal(self.folder, [path.name])})

    def _record(self, shard: int) -> Path:
        return self.folder / RECORDS / f"part-{shard:05d}.json"


class _CsvWriter:
    """Rows as CSV in UTF-8; lists and objects in a cell are JSON."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        fields = [field.with_type(pa.string()) if _nested(field.type) else field for field in schema]
        self.schema = pa.schema(fields)
        self.writer = pa.csv.CSVWriter(path, self.schema)

    def __enter__(self) -> "_CsvWriter":
        return self

    def __exit__(self, *_: Any) -> None:
        self.writer.close()

    def write_table(self, table: pa.Table) -> None:
        columns = [json_texts(column) if _nested(column.type) else column for column in table.columns]
        self.writer.write_table(pa.table(columns, schema=self.schema))


def _nested(kind: pa.DataType) -> bool:
    return pa.types.is_nested(kind)


def new_names(columns: list[str], prefix: str, taken: list[str], origin: str) -> list[str]:
    """The names of the new columns.

    Raises:
        UserError: the input already has a column with such a name.
    """
    names = [prefix + column for column in columns]
    if clash := [name for name in names if name in taken]:
        prefixes = ("predicted_" * times for times in count(1))
        free = next(each for each in prefixes if not any(each + column in taken for column in columns))
        raise UserError(
            f"{origin} already has a column {clash[0]!r}, which is also the name of a prediction column.\n"
            f"Give those a prefix: {typed('predict.prefix', free)}"
        )
    return names
