"""The answers that were paid for: one append-only file of JSON lines, found again by what was asked.

A line's `key` is a hash of everything that determines the answer (model, messages, sampling, schema), so an edited prompt
never meets old answers, while a larger limit, more samples or another calibration reuse all that are there. Only an index
of fixed size a line is held in memory; the answers themselves stay on disk.
"""

import hashlib
import json
import logging
import os
import threading
import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from findistill.errors import UserError
from findistill.llm.engine import Answer

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

SYNC_S = 1.0  # a killed process loses nothing that was written; a power cut loses at most so much
_FIELDS = frozenset(each.name for each in fields(Answer))


def request_key(*parts: Any) -> int:
    """A 64-bit hash of plain values: 10 million requests meet by chance with a probability below 1 in 100,000."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big")


class Journal:
    """Answers by request key and sample number. Use it as a context manager: one process writes at a time, others wait.

    The last line for a key and sample counts. A line that was cut short by a kill is removed.

    Raises:
        UserError: on entering, when a line other than a torn last one cannot be read; it names the line.
    """

    def __init__(self, path: Path) -> None:
        from filelock import FileLock

        self.path = path
        self._lock = FileLock(path.with_suffix(".lock"))
        self._reading = threading.Lock()  # one thread appends while another looks up what is there

    def __enter__(self) -> "Journal":
        from filelock import Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            log.info("%s is being written by another job; waiting for it", self.path.name)
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
        """Lines found on entering that count."""
        return len(self._keys)

    def places(self, keys: Sequence[int]) -> "list[dict[int, int]]":
        """For each request key, sample number -> offset of its line, as found on entering."""
        import numpy as np

        wanted = np.asarray(keys, dtype=np.uint64)
        starts = np.searchsorted(self._keys, wanted, side="left").tolist()
        ends = np.searchsorted(self._keys, wanted, side="right").tolist()
        return [
            dict(zip(self._samples[start:end].tolist(), self._offsets[start:end].tolist(), strict=True)) if end > start else {}
            for start, end in zip(starts, ends, strict=True)
        ]

    def read(self, offset: int) -> Answer:
        """The answer at an offset that `places` or `append` gave."""
        with self._reading:
            self._reader.seek(offset)
            return _answer(self._reader.readline())[1]

    def append(self, answers: Iterable[tuple[int, Answer]]) -> list[int]:
        """Write answers under their request keys; when it returns they survive a kill. Gives their offsets."""
        offsets, lines = [], []
        for key, answer in answers:
            row = {name: value for name, value in asdict(answer).items() if value is not None}
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

    def _scan(self) -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
        """Keys, sample numbers and offsets of the lines that count, by key: (n,) each."""
        import numpy as np

        keys, samples, offsets = array("Q"), array("I"), array("q")
        whole = 0
        if self.path.exists():
            with self.path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if not line.endswith(b"\n"):
                        break
                    try:
                        key, answer = _answer(line)
                    except (ValueError, TypeError, KeyError, AttributeError) as error:
                        raise UserError(
                            f"{self.path}, line {number} is not an answer: the file was damaged.\n"
                            "Remove that line to ask for it again, or the file to annotate anew."
                        ) from error
                    keys.append(key)
                    samples.append(answer.sample)
                    offsets.append(whole)
                    whole += len(line)
            if whole < self.path.stat().st_size:
                os.truncate(self.path, whole)
        columns = np.array(keys, np.uint64), np.array(samples, np.uint32), np.array(offsets, np.int64)
        by_key, by_sample, by_offset = (column[np.lexsort(columns[::-1])] for column in columns)
        last = np.ones(len(by_key), bool)
        last[:-1] = (by_key[1:] != by_key[:-1]) | (by_sample[1:] != by_sample[:-1])
        return by_key[last], by_sample[last], by_offset[last]


def _answer(line: bytes) -> tuple[int, Answer]:
    row = json.loads(line)
    key = int(row.pop("key"), 16)
    if row.get("rationale") is not None:
        row["rationale"] = tuple(row["rationale"])
    return key, Answer(**{name: value for name, value in row.items() if name in _FIELDS})
