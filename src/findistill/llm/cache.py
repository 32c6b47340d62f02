"""The response cache: an append-only file of JSON lines, indexed by what was requested.

A line's `key` is a hash of everything that determines the response (model, messages, sampling, schema), so an edited prompt
never gets old responses, while a larger limit, more samples or another calibration reuse all existing ones. Memory holds
an index entry of fixed size per line; the responses themselves stay on disk.
"""

import hashlib
import json
import logging
import os
import threading
import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from findistill.core.hashing import digest
from findistill.errors import UserError
from findistill.llm.engine import Response

log = logging.getLogger(__name__)

SYNC_S = 1.0  # a killed process loses nothing that was written; a power cut loses at most this much
_FIELDS = frozenset(field.name for field in fields(Response))


def request_key(*parts: Any) -> int:
    """A 64-bit hash of plain values: 10 million requests collide with a probability below 1 in 100,000."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big")


class ResponseCache:
    """Responses by request key and sample number. A context manager: one process writes a file at a time, others wait.

    The last line for a key and sample counts. A line that was cut short by a kill is removed.

    Raises:
        UserError: on entering, when a line other than a torn last one cannot be read; it names the line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path.with_suffix(".lock"))
        self._read_lock = threading.Lock()  # in a notebook the engine's thread reads while the caller's appends

    @classmethod
    def shared(cls, folder: Path, *parts: Any) -> "ResponseCache":
        """The cache of all jobs whose requests may coincide: those with equal `parts`, plain values.

        One of them writes at a time and the others reuse its responses; jobs with other parts run concurrently.
        """
        return cls(folder / f"{digest(list(parts))}.jsonl")

    def __enter__(self) -> "ResponseCache":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            log.info("another job is writing %s; waiting", self.path.name)
            self._lock.acquire()
        try:
            self._keys, self._samples, self._offsets = self._scan()
            self._file = self.path.open("ab")
            self._end = self._file.seek(0, os.SEEK_END)
            self._reader = self.path.open("rb")
        except BaseException:
            self._lock.release()
            raise
        self._synced = time.monotonic()
        self._added: dict[int, dict[int, int]] = {}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._reader.close()
        finally:
            self._lock.release()

    def __len__(self) -> int:
        """Responses in the index on entering."""
        return len(self._keys)

    def offsets(self, keys: Sequence[int]) -> list[dict[int, int]]:
        """For each request key, sample number -> offset of its line, as of entering, plus what `add` has written."""
        queries = np.asarray(keys, dtype=np.uint64)
        starts = np.searchsorted(self._keys, queries, side="left").tolist()
        ends = np.searchsorted(self._keys, queries, side="right").tolist()
        return [
            {**self._stored(start, end), **self._added.get(key, {})} for key, start, end in zip(keys, starts, ends, strict=True)
        ]

    def _stored(self, start: int, end: int) -> dict[int, int]:
        if start == end:
            return {}
        return dict(zip(self._samples[start:end].tolist(), self._offsets[start:end].tolist(), strict=True))

    def add(self, key: int, response: Response) -> None:
        """Write a response that `offsets` includes from now on."""
        [offset] = self.append([(key, response)])
        self._added.setdefault(key, {})[response.sample] = offset

    def read(self, offset: int) -> Response:
        """The response at an offset that `offsets` or `append` returned."""
        with self._read_lock:
            self._reader.seek(offset)
            return _parse(self._reader.readline())[1]

    def append(self, responses: Iterable[tuple[int, Response]]) -> list[int]:
        """Write responses under their request keys and return their offsets; written responses survive a kill."""
        offsets, lines = [], []
        for key, response in responses:
            row = {name: value for name, value in vars(response).items() if value is not None}
            line = json.dumps({"key": f"{key:016x}", **row}, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
            offsets.append(self._end)
            self._end += len(line)
            lines.append(line)
        self._file.write(b"".join(lines))
        self._file.flush()
        if time.monotonic() - self._synced > SYNC_S:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()
        return offsets

    def _scan(self) -> tuple[np.ndarray, ...]:
        """Keys, sample numbers and offsets of the lines that count, sorted by key: (n,) each."""
        keys, samples, offsets = array("Q"), array("I"), array("q")
        end = 0
        if self.path.exists():
            with self.path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if not line.endswith(b"\n"):
                        break
                    try:
                        key, response = _parse(line)
                    except (ValueError, TypeError, KeyError, AttributeError) as error:
                        raise UserError(
                            f"{self.path}, line {number} is not a cached response: the file is damaged.\n"
                            "Delete that line to request its response again, or the file to request all of them again."
                        ) from error
                    keys.append(key)
                    samples.append(response.sample)
                    offsets.append(end)
                    end += len(line)
            if end < self.path.stat().st_size:
                os.truncate(self.path, end)
        index = pd.DataFrame({"key": np.array(keys), "sample": np.array(samples), "offset": np.array(offsets)})
        index = index.drop_duplicates(["key", "sample"], keep="last").sort_values(["key", "sample"])
        return tuple(index[column].to_numpy() for column in index)


def _parse(line: bytes) -> tuple[int, Response]:
    row = json.loads(line)
    key = int(row.pop("key"), 16)
    if row.get("rationale") is not None:
        row["rationale"] = tuple(row["rationale"])
    return key, Response(**{name: value for name, value in row.items() if name in _FIELDS})
