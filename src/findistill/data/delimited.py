"""CSV and similar formats, read strictly: delimiter and quoting are inferred, and every row must have all its cells."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from itertools import chain, islice
from pathlib import Path
from typing import Any

from findistill.config.overrides import typed
from findistill.data.text_files import lines, read_text
from findistill.errors import UserError

csv.field_size_limit(2**31 - 1)  # posts can be longer than csv's default of 128 KB

NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
RARE = ("@", "^", "~", "¦")  # such as sentence@label
SAMPLE = 200  # rows from which the delimiter is inferred
SAMPLE_CHARACTERS = 2**20
NONE = "\x1f"  # a delimiter that occurs in no text, for files of one column
# How quotes inside a cell are written: doubled; after a backslash, as by Spark and MySQL; unescaped.
QUOTING: tuple[dict[str, Any], ...] = ({}, {"escapechar": "\\", "doublequote": False}, {"quoting": csv.QUOTE_NONE})


@dataclass(frozen=True)
class Layout:
    """How to read a file that does not say so itself, and which columns its reader needs.

    Attributes:
        delimiter: a character, or one of `NAMES`; None: the one that gives rows as long as the header.
        columns: the names of the columns, for a file without a header line.
        text_column: the required column; it distinguishes a header from data.
        wanted: further columns that should be there.
    """

    delimiter: str | None = None
    columns: Sequence[str] | None = None
    text_column: str | None = None
    wanted: Sequence[str] = ()


def read_csv(path: Path, encoding: str = "utf-8", layout: Layout | None = None) -> list[dict[str, Any]]:
    """All cells as text, empty ones as ''; a cell such as `NA` is kept as it is.

    Raises:
        UserError: no such file, not in this encoding, no header, no rows, a row of the wrong length, an unclosed quote.
    """
    layout = layout or Layout()
    content = read_text(path, encoding).getvalue()
    hint, delimiter = _start(path, content, layout)
    content = content[hint:]
    failure = None
    for quoting in _ways_of_quoting(delimiter, '\\"' in content):
        try:
            return as_rows(path, list(_cells(path, StringIO(content, newline=""), delimiter, quoting, layout.columns)), layout)
        except _NotRectangularError as error:
            failure = failure or error
    raise UserError(str(failure)) from failure


def _start(path: Path, content: str, layout: Layout) -> tuple[int, str]:
    """The length of a `sep=` line before the header (0: none), and the delimiter."""
    hint = re.match(r"sep=(.)\r?\n", content)  # Excel's way of declaring it
    body = content[hint.end() :] if hint else content
    if not body.strip():
        raise UserError(f"{path}: the file is empty; a header line with column names is needed")
    if body.lstrip()[:2] in ('{"', "[{", "[\n", "[\r", "{}", "[]"):
        raise UserError(f"{path}: this is JSON; use data=jsonl")
    return hint.end() if hint else 0, _character(layout.delimiter) or (hint and hint[1]) or _delimiter(body, layout)


def _ways_of_quoting(delimiter: str, backslashes: bool) -> Iterator[Mapping[str, Any]]:
    """Those ways of `QUOTING` that a file may have been written with."""
    for quoting in QUOTING:
        quotes_are_text = "quoting" in quoting and delimiter in (",", ";", "|")  # a text may contain these
        if not quotes_are_text and ("escapechar" not in quoting or backslashes):
            yield quoting


@dataclass(frozen=True)
class CsvFile:
    """A file that is read row by row; `open` checks every row first.

    Attributes:
        header: the names of its columns.
        count: number of rows.
    """

    path: Path
    encoding: str
    layout: Layout
    header: list[str]
    count: int
    hint: int
    delimiter: str
    quoting: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path, encoding: str, layout: Layout) -> "CsvFile":
        """Raises UserError like `read_csv`."""
        sample = ""
        for line in lines(path, encoding):
            sample += line
            if len(sample) >= SAMPLE_CHARACTERS:
                break
        hint, delimiter = _start(path, sample, layout)
        backslashes = any('\\"' in line for line in lines(path, encoding))
        failure = None
        for quoting in _ways_of_quoting(delimiter, backslashes):
            file = cls(path, encoding, layout, [], 0, hint, delimiter, quoting)
            try:
                first = list(islice(file.cells(), SAMPLE + 1))
                header = list(as_rows(path, first, layout)[0])
                return replace(file, header=header, count=sum(1 for _ in file.cells()) - (not layout.columns))
            except _NotRectangularError as error:
                failure = failure or error
        raise UserError(str(failure)) from failure

    def cells(self) -> Iterator[list[str]]:
        """The cells of every row, including the header."""
        source = lines(self.path, self.encoding)
        if self.hint:
            next(source)
        return _cells(self.path, source, self.delimiter, self.quoting, self.layout.columns)

    def rows(self) -> Iterator[list[str]]:
        """The cells of every row below the header."""
        return islice(self.cells(), 0 if self.layout.columns else 1, None)


def as_rows(path: Path, rows: list[list[Any]], layout: Layout) -> list[dict[str, Any]]:
    """Each row as a dict; the first row is the header unless the layout names the columns.

    Raises:
        UserError: no rows, or an invalid header.
    """
    header = list(layout.columns or [])
    if not header:
        header = [str("" if cell is None else cell).strip() for cell in rows[0]] if rows else []
        if layout.text_column and rows and layout.text_column not in header and looks_like_data(rows):
            raise UserError(
                f"{path} has no column {layout.text_column!r}; its first line is {_short(rows[0])}.\n"
                f"If that is not a header, name the columns: {typed('data.columns', _guessed_columns(rows, layout))}"
            )
        rows = rows[1:]
        header = _distinct(path, header, layout)
    elif rows and [str(cell).strip().casefold() for cell in rows[0]] == [name.casefold() for name in header]:
        raise UserError(f"{path}: the file already has a header line; remove data.columns")
    if not rows:
        raise UserError(f"{path}: no rows")
    return [dict(zip(header, row, strict=True)) for row in rows]


class _NotRectangularError(UserError):
    """A way of quoting that does not fit the file."""


def _character(delimiter: str | None) -> str | None:
    return {**NAMES, "none": NONE, "\\t": "\t"}.get(delimiter or "", delimiter)


def _cells(
    path: Path, content: Iterable[str], delimiter: str, quoting: Mapping[str, Any], columns: Sequence[str] | None
) -> Iterator[list[str]]:
    """The rows of these lines, each as long as the header, without blank lines."""
    source = iter(content)
    first = next(source, "")
    spaced = re.match(rf'[^"\n]*"?{re.escape(delimiter)} ', first) is not None  # `text, label` in the header
    reader = csv.reader(chain([first], source), delimiter=delimiter, strict=True, skipinitialspace=spaced, **quoting)
    width, whose = len(columns or ()), "data.columns has"
    try:
        for row in reader:
            if not any(cell.strip() for cell in row) and (not row or len(row) != width or width == 1):
                continue
            if not width:
                width, whose = len(row), "the header has"
            if len(row) > width and not any(cell.strip() for cell in row[width:]):
                row = row[:width]  # trailing delimiters
            if len(row) != width:
                name = next((name for name, character in NAMES.items() if character == delimiter), repr(delimiter))
                raise _NotRectangularError(
                    f"{path}, line {reader.line_num}: {_count(len(row))} where {whose} {width}; texts that contain a {name} need "
                    'quotes ("..."), or set data.delimiter=comma, semicolon, tab, pipe or none'
                )
            yield row
    except csv.Error as error:
        raise _NotRectangularError(f"{path}, line {reader.line_num}: not valid CSV ({error}); check the quotes") from error


def _count(cells: int) -> str:
    return f"{cells} cell{'s' * (cells != 1)}"


def _delimiter(content: str, layout: Layout) -> str:
    """The delimiter with which the header has the wanted columns and the rows are as long as the header."""
    columns = {layout.text_column, *layout.wanted} - {None}
    scores: dict[str, tuple[int, bool, float, int]] = {}
    regular: list[str] = []
    for delimiter in (*NAMES.values(), *RARE):
        rows = _sample(content, delimiter)
        header = list(layout.columns or rows[0])
        lengths = Counter(len(row) for row in rows[0 if layout.columns else 1 :])
        share = lengths[len(header)] / max(1, lengths.total())
        names = 0 if layout.columns else len(columns & {cell.strip() for cell in header})
        scores[delimiter] = names, len(header) > 1 and share > 0.9, share, len(header)
        if len(header) == 1 and delimiter not in RARE:
            # If all rows have the same number of further cells, these are not texts with commas: the header lacks a name.
            regular += [delimiter] if len(lengths) == 1 and lengths.total() > 2 and 1 not in lengths else []
    if all(length == 1 for *_, length in scores.values()):
        return regular[0] if regular else NONE
    return max(scores, key=lambda delimiter: scores[delimiter])


def _sample(content: str, delimiter: str) -> list[list[str]]:
    """The first rows, however they are quoted, without blank lines."""
    lines = StringIO(content[:SAMPLE_CHARACTERS], newline="")
    return list(islice((row for row in csv.reader(lines, delimiter=delimiter) if any(map(str.strip, row))), SAMPLE)) or [[]]


def looks_like_data(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether the first row has what no header has: a sentence, a number, or a value that recurs in its column."""
    header, *others = rows[:SAMPLE]
    for column, cell in enumerate(header):
        text = str("" if cell is None else cell).strip()
        values = [row[column] for row in others if column < len(row)]
        if len(text.split()) > 3 or len(text) > 60 or re.fullmatch(r"[+-]?\d+([.,]\d+)*", text) or (text and cell in values):
            return True
    return False


def _guessed_columns(rows: Sequence[Sequence[Any]], layout: Layout) -> list[str]:
    """Column names for a file without a header: the longest cells are the texts, the fewest distinct values the labels."""
    table = [[str(cell) for cell in row] for row in rows[:SAMPLE]]
    columns = range(len(table[0]))
    text = max(columns, key=lambda column: sum(len(row[column]) for row in table))
    names = [f"c{column + 1}" for column in columns]
    names[text] = str(layout.text_column)
    if others := [column for column in columns if column != text]:
        label = min(others, key=lambda column: len({row[column] for row in table}))
        names[label] = next((name for name in layout.wanted if name != layout.text_column), "label")
    return names


def _distinct(path: Path, header: list[str], layout: Layout) -> list[str]:
    """The header with unique names, also for unnamed columns such as an index that pandas wrote."""
    columns = {layout.text_column, *layout.wanted}
    names: list[str] = []
    for number, name in enumerate(header):
        if name in names and (name in columns or not layout.text_column):
            raise UserError(f"{path}: a column name occurs twice in the header: {', '.join(header)}")
        plain = name or f"Unnamed: {number}"
        names.append(plain if plain not in names else f"{plain}.{number}")
    return names


def _short(cells: Iterable[Any], length: int = 100) -> str:
    text = " ".join(", ".join(str(cell) for cell in cells).split())
    return text if len(text) <= length else f"{text[:length]}..."
