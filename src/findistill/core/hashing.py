"""Hashes of plain values and of files, from which keys are built."""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from findistill.core import termination
from findistill.core.files import cache_dir, read_json, write_json

LARGE = 1 << 20  # bytes; the hashes of files this large are cached on disk
SETTLED_S = 2.0  # a file changed more recently than this may change again within the clock's resolution
MISSING = "missing"


def digest(value: Any, length: int = 12) -> str:
    """A short hash of a plain value (dicts, lists, strings, numbers), equal for equal values."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_hash(path: Path) -> str:
    """sha256 of a file's content, `MISSING` if there is no file.

    The hash of a large file is cached on disk by path, size, inode, mtime and ctime, so that a finished sweep over large
    weights is recognised without reading them; a file that changed within the last two seconds is not cached there.
    """
    try:
        stat = path.stat()
    except OSError:
        return MISSING
    version = (stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
    return _hash(str(path.resolve()), version)


def content(paths: Iterable[Path]) -> dict[str, str]:
    """File name -> hash of the content. The folders that the files are in do not matter."""
    hashes: dict[str, str] = {}
    for path in paths:
        name = path.name if path.name not in hashes else f"{path.name} ({len(hashes)})"
        hashes[name] = file_hash(path)
    return hashes


def seal(folder: Path, names: Iterable[str]) -> dict[str, list[Any]]:
    """A record by which later changes to files are detected: name -> sha256, size in bytes, mtime in ns.

    Raises:
        KeyboardInterrupt: SIGTERM arrived while they were written, and may have cut one short without an error.
    """
    termination.check()
    sealed = {}
    for name in sorted(names):
        stat = (folder / name).stat()
        sealed[name] = [file_hash(folder / name), stat.st_size, stat.st_mtime_ns]
    return sealed


def damaged(folder: Path, sealed: Mapping[str, Sequence[Any]]) -> str | None:
    """The name of the first file that differs from its seal; None if none does.

    Small files are always hashed, large ones only if their mtime differs, as it does in a copy.
    """
    for name, seal_ in sealed.items():
        try:
            value, size, changed = seal_
            stat = (folder / name).stat()
        except (OSError, ValueError, TypeError):  # a missing file, or a seal that is not ours
            return name
        as_it_was = size == stat.st_size and (
            (size >= LARGE and changed == stat.st_mtime_ns) or file_hash(folder / name) == value
        )
        if not as_it_was:
            return name
    return None


@cache
def _hash(path: str, version: tuple[int, int, int, int]) -> str:
    large = version[0] >= LARGE
    *cached, value = _cached().get(path, [None]) if large else [None]
    if cached == list(version):
        return str(value)
    with Path(path).open("rb") as handle:
        value = hashlib.file_digest(handle, "sha256").hexdigest()
    if large and time.time() - max(version[2:]) / 1e9 > SETTLED_S:
        # Concurrent processes may overwrite each other's entry; that only costs hashing the file once more.
        with suppress(OSError):
            entries = {name: entry for name, entry in _cached().items() if Path(name).exists()}
            write_json(_cache_file(), {**entries, path: [*version, value]})
    return value


def _cache_file() -> Path:
    return cache_dir() / "file_hashes.json"


def _cached() -> dict[str, list[Any]]:
    with suppress(OSError, ValueError, TypeError):
        return dict(read_json(_cache_file()))
    return {}
