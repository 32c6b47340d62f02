"""Rows of files that may be larger than memory, in small tables with all columns, and the text of each row.

Each file is first scanned once to count rows, infer column types and report a faulty row with its place. For Parquet, the
footer suffices.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from findistill.data.cells import is_missing, lookup
from findistill.data.cells import names as field_names
from findistill.data.config import FileData
from findistill.data.delimited import CsvFile
from findistill.data.json_rows import stream_jsonl
from findistill.data.locations import format_of
from findistill.data.parquet_files import check_parquet, reading
from findistill.data.user_files import half_of, layout, no_column, text_of
from findistill.errors import UserError

AT_ONCE = 1024  # most rows of a table
Types = dict[str, pa.DataType | None]  # of columns; None: values of several types, which become JSON


@dataclass(frozen=True)
class Part:
    """One file: its number of rows, its columns, and a function that reads its tables and their texts from a row on."""

    path: Path
    rows: int
    types: Types
    read: Callable[[int], Iterator[tuple[pa.Table, list[str]]]]


@dataclass(frozen=True)
class Stream:
    """The rows of several files, one after the other; a blank text is ''."""

    parts: tuple[Part, ...]

    @cached_property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @cached_property
    def schema(self) -> pa.Schema:
        """Every column that any file has."""
        types: Types = {}
        for part in self.parts:
            types = _merged(types, part.types)
        return pa.schema([(name, pa.string() if kind is None else kind) for name, kind in types.items()])

    def tables(self, skip: int = 0) -> Iterator[tuple[pa.Table, list[str]]]:
        """Tables of at most `AT_ONCE` rows, each with the columns of `schema`, and their texts; without the first `skip` rows."""
        for part in self.parts:
            if skip < part.rows:
                for table, texts in part.read(skip):
                    yield _conformed(table, self.schema, part.path), texts
            skip = max(0, skip - part.rows)


def open_stream(config: FileData, files: Iterable[Path]) -> Stream:
    """The rows of `files`, in the format of the data source `config`.

    Raises:
        UserError: a file is not of this format, has no rows or no text column, or a row is faulty.
    """
    opened: dict[str, Callable[[FileData, Path], Part]] = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}
    return Stream(tuple(opened[format_of(config)](config, path) for path in files))


def _csv(config: FileData, path: Path) -> Part:
    file = CsvFile.open(path, config.encoding, layout(config))
    if config.text_column not in file.header:
        raise no_column(str(path), config, "text_column", file.header)
    column = file.header.index(config.text_column)

    def read(skip: int) -> Iterator[tuple[pa.Table, list[str]]]:
        for rows in _parts(islice(file.rows(), skip, None)):
            cells = list(zip(*rows, strict=True))
            arrays = [pa.array(values, pa.string()) for values in cells]
            yield pa.table(arrays, file.header), [text.strip() and text for text in cells[column]]

    return Part(path, file.count, dict.fromkeys(file.header, pa.string()), read)


def _jsonl(config: FileData, path: Path) -> Part:
    def rows() -> Iterator[dict[str, Any]]:
        return stream_jsonl(path, config.encoding, config.text_column)

    types: Types = {}
    count, seen = 0, False
    for some in _parts(rows()):
        for number, row in enumerate(some, count + 1):
            value = lookup(row, config.text_column)
            seen = seen or value is not None
            text_of(value, config, f"{path}, row {number}")
            _check_characters(row, f"{path}, row {number}")
        types = _merged(types, _types(some))
        count += len(some)
    if not seen and not any(config.text_column in part for part in types):
        raise no_column(str(path), config, "text_column", field_names(islice(rows(), AT_ONCE)))

    def read(skip: int) -> Iterator[tuple[pa.Table, list[str]]]:
        for some in _parts(islice(rows(), skip, None)):
            columns = {name: _array([row.get(name) for row in some], kind) for name, kind in types.items()}
            texts = [text_of(lookup(row, config.text_column), config, str(path)) for row in some]
            yield pa.table(columns), [text.strip() and text for text in texts]

    return Part(path, count, types, read)


def _parquet(config: FileData, path: Path) -> Part:
    check_parquet(path)
    with reading(path):
        file = pa.parquet.ParquetFile(path)
        schema, count = file.schema_arrow, file.metadata.num_rows
        groups = [file.metadata.row_group(at).num_rows for at in range(file.metadata.num_row_groups)]
    if not count:
        raise UserError(f"{path}: no rows")
    root, *inner = [config.text_column] if config.text_column in schema.names else config.text_column.split(".")
    kind = schema.field(root).type if root in schema.names else None
    for name in inner:
        kind = (
            kind.field(name).type if kind is not None and pa.types.is_struct(kind) and kind.get_field_index(name) >= 0 else None
        )
    if kind is None:
        raise no_column(str(path), config, "text_column", schema.names)
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not any(fits(plain) for fits in TEXT_TYPES):
        raise UserError(f"{path}: the column {config.text_column} has the type {kind}, not text; check data.text_column")

    def read(skip: int) -> Iterator[tuple[pa.Table, list[str]]]:
        first = 0
        while first < len(groups) and skip >= groups[first]:
            skip -= groups[first]
            first += 1
        with reading(path):
            for batch in pa.parquet.ParquetFile(path).iter_batches(AT_ONCE, row_groups=range(first, len(groups))):
                if skip >= len(batch):
                    skip -= len(batch)
                    continue
                table = pa.Table.from_batches([batch.slice(skip)])
                skip = 0
                table.validate(full=True)  # damaged offsets would crash the process
                column = pc.struct_field(table[root], inner) if inner else table[root]
                texts = [text_of(value, config, str(path)) for value in column.to_pylist()]
                yield table, [text.strip() and text for text in texts]

    return Part(path, count, {field.name: field.type for field in schema}, read)


TEXT_TYPES = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary, pa.types.is_large_binary,
    pa.types.is_null,
)  # fmt: skip


def _parts(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while part := list(islice(rows, AT_ONCE)):
        yield part


def _check_characters(row: Mapping[str, Any], at: str) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{at}: a lone surrogate ({half_of(error)}); remove or fix it") from None


def _types(rows: Iterable[Mapping[str, Any]]) -> Types:
    """The type of each column of JSON objects."""
    rows = list(rows)
    kinds: Types = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        try:
            kind = pa.array([row.get(name) for row in rows]).type
            kinds[name] = None if _hollow(kind) else kind
        except (pa.ArrowException, OverflowError, ValueError):
            kinds[name] = None
    return kinds


def _hollow(kind: pa.DataType) -> bool:
    """Whether a type contains an object without fields, which Parquet cannot store."""
    inner = [kind.field(at).type for at in range(kind.num_fields)]
    return (pa.types.is_struct(kind) and not inner) or any(map(_hollow, inner))


def _merged(first: Types, second: Types) -> Types:
    """Columns of either, each with a type that holds the values of both."""
    merged = {**second, **first}
    for name in first.keys() & second.keys():
        one, other = first[name], second[name]
        if one is None or other is None:
            merged[name] = None
        elif one != other:
            try:
                both = [pa.schema([(name, kind)]) for kind in (one, other)]
                merged[name] = pa.unify_schemas(both, promote_options="permissive").field(0).type
            except pa.ArrowException:
                merged[name] = None
    return {name: merged[name] for name in dict.fromkeys([*first, *second])}


def _array(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    if kind is None:
        return pa.array([None if is_missing(value) else as_json(value) for value in values], pa.string())
    return pa.array(values, kind)


def as_json(value: Any) -> str:
    """A value as text: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _conformed(table: pa.Table, schema: pa.Schema, path: Path) -> pa.Table:
    """The table with all columns of `schema`, in their order and types; a column that the file lacks is null."""
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(len(table), field.type))
        elif table[field.name].type == field.type:
            columns.append(table[field.name])
        else:
            try:
                columns.append(table[field.name].cast(field.type))
            except pa.ArrowException:  # values of several types
                columns.append(json_texts(table[field.name]))
    return pa.table(columns, schema=schema)


def json_texts(column: pa.ChunkedArray) -> pa.Array:
    """The values of a column as texts, null where there is none."""
    return pa.array([None if value is None else as_json(value) for value in column.to_pylist()], pa.string())
