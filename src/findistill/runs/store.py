"""Artifacts: folders made once, named by the hash of everything that determines them.

A folder under its final name is complete. It is made as `<name>.partial`, under a lock, and renamed when it is done; a
maker that finds what an earlier, killed one left there may go on from it.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from findistill.runs.files import write_json

log = logging.getLogger(__name__)


def digest(value: Any, length: int = 12) -> str:
    """A short hash of a plain value (dicts, lists, strings, numbers), equal for equal values."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@dataclass(frozen=True)
class Artifact:
    """A complete folder; `made` tells whether this call made it, `seconds` how long making it took, then or now."""

    path: Path
    made: bool
    seconds: float


class Store:
    """The artifacts under one folder, shared by all jobs and processes that use it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, kind: str, key: Mapping[str, Any], make: Callable[[Path], None], *, resumable: bool = False) -> Artifact:
        """The artifact of `kind` determined by `key`, made by `make(folder)` if it is not there yet.

        Jobs that ask for the same artifact at the same time wait for the one that makes it. With `resumable`, `make`
        receives what an interrupted call left and continues; without, it starts from an empty folder.
        """
        path = self.root / f"{kind}-{digest(key)}"
        if not path.exists():
            from filelock import FileLock, Timeout

            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_suffix(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("%s is being made by another job; waiting for it", path.name)
                lock.acquire()
            try:
                if not path.exists():
                    return self._make(path, key, make, resumable)
            finally:
                lock.release()
        return Artifact(path, made=False, seconds=_seconds(path))

    def _make(self, path: Path, key: Mapping[str, Any], make: Callable[[Path], None], resumable: bool) -> Artifact:
        partial = path.with_suffix(".partial")
        if partial.exists() and not resumable:
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        before = _seconds(partial)
        started = time.perf_counter()
        try:
            make(partial)
        except BaseException:
            if resumable:
                write_json(partial / "artifact.json", {"seconds": before + time.perf_counter() - started})
            else:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        seconds = before + time.perf_counter() - started
        write_json(partial / "artifact.json", {"key": dict(key), "seconds": seconds, "made": time.time()})
        partial.rename(path)
        return Artifact(path, made=True, seconds=seconds)


def _seconds(folder: Path) -> float:
    try:
        return float(json.loads((folder / "artifact.json").read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError):
        return 0.0
