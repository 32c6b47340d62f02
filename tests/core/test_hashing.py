"""File hashes: cached by file metadata, but not while a file may still change."""

import os
import time
from pathlib import Path

import pytest

from findistill.core import hashing
from findistill.core.hashing import LARGE, MISSING, content, file_hash


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The files whose content is read, by a process with an empty in-memory cache."""
    opened: list[Path] = []
    original = Path.open

    def opening(self: Path, *arguments: object, **options: object):
        if self.suffix == ".bin" and arguments == ("rb",):
            opened.append(self)
        return original(self, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setenv("FINDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Path, "open", opening)
    hashing._hash.cache_clear()
    return opened


def large(path: Path, byte: bytes = b"x") -> Path:
    path.write_bytes(byte * LARGE)
    return path


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time() + 60
    monkeypatch.setattr(hashing.time, "time", lambda: later)


def test_a_large_file_is_read_once_by_all_processes(tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    first = file_hash(large(tmp_path / "weights.bin"))
    hashing._hash.cache_clear()  # as in a new process
    assert file_hash(tmp_path / "weights.bin") == first and len(reads) == 1


def test_other_content_of_the_same_size_and_time_is_seen(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    path = large(tmp_path / "weights.bin")
    first, stat = file_hash(path), path.stat()
    large(path, b"y")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as rsync and cp -p do
    hashing._hash.cache_clear()
    assert file_hash(path) != first


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path, reads: list[Path]) -> None:
    file_hash(large(tmp_path / "weights.bin"))
    hashing._hash.cache_clear()
    file_hash(tmp_path / "weights.bin")
    assert len(reads) == 2


def test_a_cache_that_cannot_be_read_is_no_cache(tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "file_hashes.json").write_text("[{")
    assert len(file_hash(large(tmp_path / "weights.bin"))) == 64


def test_missing_files_and_equal_names(tmp_path: Path) -> None:
    assert file_hash(tmp_path / "none") == MISSING
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(folder)
    hashes = content([tmp_path / "a" / "config.json", tmp_path / "b" / "config.json"])
    assert len(set(hashes.values())) == len(hashes) == 2
