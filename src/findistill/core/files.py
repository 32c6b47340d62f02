"""Atomic file writes: a reader sees the old content or the new, never a partial file, even after a power cut."""

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_synced_together: ContextVar[tuple[Path, Collection[str]] | None] = ContextVar("_synced_together", default=None)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it replaces `path` if the block succeeds, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        umask = os.umask(0)
        os.umask(umask)
        aside.chmod(0o666 & ~umask)
        if _is_synced_later(path):
            aside.replace(path)
        else:
            sync(aside)
            aside.replace(path)
            sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder` to fill; it replaces `folder` if the block succeeds, else it is removed."""
    aside = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    try:
        yield aside
        if folder.exists():
            shutil.rmtree(folder)
        aside.replace(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


@contextmanager
def synced_together(folder: Path, *, but: Collection[str]) -> Iterator[None]:
    """Flush the files that this block writes in `folder` once, when it succeeds, instead of each when it is written.

    For a folder that counts for nothing before that: after a power cut in the block, its files are written again. Those in the
    subfolders and under the names `but` are flushed at once. A flush takes milliseconds, and a job writes dozens of files.
    """
    token = _synced_together.set((folder.absolute(), but))
    try:
        yield
    finally:
        _synced_together.reset(token)
    sync_tree(folder)


def _is_synced_later(path: Path) -> bool:
    folder, but = _synced_together.get() or (None, ())
    path = path.absolute()
    return folder is not None and path.is_relative_to(folder) and path.relative_to(folder).parts[0] not in but


def sync(path: Path) -> None:
    """Flush the content of a file, or the entries of a folder, to disk."""
    with suppress(OSError):  # not supported for folders on Windows and on some network mounts
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_tree(folder: Path) -> None:
    """`sync` everything in a folder, so that its content is on disk before it is renamed or marked complete."""
    for path in [*folder.rglob("*"), folder]:
        if not path.is_symlink():
            sync(path)


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write a file atomically; returns `path`."""
    with replacing(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_json(path: Path, value: Any) -> None:
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")


def cache_dir() -> Path:
    """The user's cache for data that belongs to no study: `$FINDISTILL_CACHE`, or `findistill` in the usual cache folder."""
    if folder := os.environ.get("FINDISTILL_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "findistill"


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
