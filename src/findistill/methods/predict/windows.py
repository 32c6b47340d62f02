"""The input split into windows of rows within a shard; each distinct text of a shard is predicted once."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from findistill.data.streams import Stream

ROWS = 4096  # per window: the texts sorted by length together, and a worker's unit of work


@dataclass(frozen=True)
class Window:
    """Rows of one shard.

    Attributes:
        table: the input's columns.
        texts: distinct texts that no earlier window of the shard has.
        answer: (rows,) int64, index of each row's text among the shard's distinct texts; -1: it has none.
    """

    table: pa.Table
    texts: list[str]
    answer: np.ndarray


def windows_in(rows: int) -> int:
    """How many windows a shard of this many rows has."""
    return -(-rows // ROWS)


def windows(stream: Stream, shards: list[int], shard_rows: int) -> Iterator[Window]:
    """The windows of these shards, in order. They depend on the input alone, not on what was predicted before."""
    if not shards:
        return
    selected, first = set(shards), min(shards)
    at = first * shard_rows
    places: dict[str, int] = {}
    tables: list[pa.Table] = []
    texts: list[str] = []
    for table, some in stream.tables(skip=at):
        start = 0
        while start < len(some):
            if at % shard_rows == 0 and not texts:
                places = {}
            size = min(ROWS - len(texts), shard_rows - at % shard_rows, len(some) - start)
            tables.append(table.slice(start, size))
            texts += some[start : start + size]
            start, at = start + size, at + size
            if len(texts) == ROWS or at % shard_rows == 0 or at == stream.rows:
                if (at - 1) // shard_rows in selected:
                    yield _window(pa.concat_tables(tables), texts, places)
                tables, texts = [], []


def _window(table: pa.Table, texts: list[str], places: dict[str, int]) -> Window:
    before = len(places)
    answer = np.array([places.setdefault(text, len(places)) if text else -1 for text in texts], np.int64)
    return Window(table, list(places)[before:], answer)
