"""The text of a file, unpacked and decoded; other formats are refused with a remedy."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from findistill.errors import UserError

PACKED = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ\x00": lzma.decompress}
OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
FORMATS = {  # first bytes -> what the file is, and what to do
    b"PAR1": "a Parquet file; use data=parquet",
    b"PK\x03\x04": "a zip archive, as Excel's .xlsx is; use data=excel, or unpack it",
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls), or a locked one; save it as .xlsx, without a password, and use data=excel",
    b"ARROW1": "an Arrow file; use data=hub with data.path set to the folder that save_to_disk wrote, or save it as Parquet",
    b"\xff\xff\xff\xff": "an Arrow stream; use data=hub with data.path set to the folder that save_to_disk wrote",
    b"%PDF": "a PDF; save its table as CSV",
    b"SQLite format 3": "an SQLite database; save the table as CSV",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; decompress it, or compress it with gzip",
}
MARKS = {  # byte order marks; the longer ones first
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xef\xbb\xbf": "utf-8",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
WESTERN = 0.2  # share of non-ASCII bytes up to which a text counts as Latin script


def check_file(path: Path) -> None:
    """Raise UserError if `path` is not a file."""
    if path.is_dir():
        raise UserError(
            f"{path}: a folder, not a file; check data.path. data=parquet reads a folder of Parquet files, data=hub "
            "one written by datasets.save_to_disk"
        )
    if not path.is_file():
        raise UserError(f"{path}: no such file; check data.path")


def refuse_other_formats(path: Path, content: bytes) -> None:
    """Raise UserError if the first bytes are those of another format."""
    for mark, remedy in FORMATS.items():
        if content.startswith(mark):
            raise UserError(f"{path}: this is {remedy}")


def read_text(path: Path, encoding: str = "utf-8") -> StringIO:
    """A file's text with unchanged line ends. Files packed with gzip, bzip2 or xz are unpacked.

    A byte order mark takes precedence over `encoding`.

    Raises:
        UserError: no such file, another format, damaged, or not in this encoding.
    """
    check_file(path)
    content = path.read_bytes()
    for mark, unpack in PACKED.items():
        if content.startswith(mark):
            try:
                content = unpack(content)
            except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
                raise UserError(f"{path}: cannot be decompressed ({error}): damaged or truncated; copy it again") from error
    refuse_other_formats(path, content)
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), encoding)
    try:
        text = content.decode(encoding)
    except LookupError:
        raise UserError(f"data.encoding={encoding}: unknown, so {path} cannot be read; try utf-8, cp1252 or latin-1") from None
    except UnicodeError as error:
        raise UserError(f"{path}{_fault(content, encoding, error)}") from error
    if (at := text.find("\0")) >= 0:
        zeros = [content[start : start + 2000 : 2].count(0) for start in (0, 1)]
        likely = "utf-16-le" if zeros[1] > 10 * zeros[0] else "utf-16-be" if zeros[0] > 10 * zeros[1] else ""
        why = f"it looks like UTF-16: set data.encoding={likely}" if likely else "the file is damaged or not text"
        raise UserError(f"{path}, line {text.count(chr(10), 0, at) + 1}: a NUL character; {why}")
    return StringIO(text.removeprefix("\ufeff"), newline="")


def lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """The lines of a file as in `read_text`, with line ends, read one at a time.

    Raises:
        UserError: as `read_text`, when the faulty line is reached.
    """
    check_file(path)
    with path.open("rb") as plain:
        start = plain.read(16)
    opener = next((opener for mark, opener in OPENERS.items() if start.startswith(mark)), open)
    try:
        with opener(path, "rb") as binary:
            start = binary.read(16)
        refuse_other_formats(path, start)
        encoding = next((name for mark, name in MARKS.items() if start.startswith(mark)), encoding)
        with opener(path, "rt", encoding=encoding, newline="") as text:
            for number, line in enumerate(text):
                if "\0" in line:
                    raise ValueError("a NUL character")
                yield line.removeprefix("\ufeff") if number == 0 else line
    except (UnicodeError, LookupError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        read_text(path, encoding)  # raises an error that says what is wrong, and where
        raise


def _fault(content: bytes, encoding: str, error: UnicodeError) -> str:
    """Where and why the content is not in this encoding, and in which it may be."""
    if not isinstance(error, UnicodeDecodeError):
        return f": not {encoding} ({error}); set data.encoding=utf-8"
    line = content.count(b"\n", 0, error.start) + 1
    at = f", line {line}, byte {error.start}: 0x{content[error.start]:02x} is not {encoding}"
    if error.end >= len(content) and error.start >= len(content) - 4 and _decodes(content[: error.start], encoding):
        return f"{at}: the file ends inside a character, so it is truncated; copy it again"
    return f"{at}; set data.encoding={_likely(content)}"


def _likely(content: bytes) -> str:
    """The most probable encoding of text that is not in the one that was tried."""
    # Takes a 20th of a second to import, and is needed only for an error.
    from charset_normalizer import from_bytes

    if _decodes(content, "utf-8"):
        return "utf-8"
    start = content[:100_000]
    if sum(byte > 127 for byte in start) > WESTERN * len(start) and (guess := from_bytes(start).best()):
        return guess.encoding.replace("_", "-")
    return "cp1252" if _decodes(content, "cp1252") else "latin-1"


def _decodes(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeError:
        return False
    return True
