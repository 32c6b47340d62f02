"""Training batches: rows grouped by length, reshuffled every epoch, as tensors.

Everything is a function of its arguments; the epoch counter of the sampler is the only state.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from findistill.models.tokens import Tokens, padded

MEGABATCH = 50  # batches sorted by length together: enough to group well, too few to order an epoch


def length_grouped(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Shuffled batches of row indexes whose rows have similar lengths; every row once, one short batch at most.

    Rows are shuffled, sorted by length within megabatches of 50 batches, cut, and the batches shuffled.
    """
    order = rng.permutation(len(lengths))
    span = batch_size * MEGABATCH
    batches = []
    for start in range(0, len(order), span):
        mega = order[start : start + span]
        mega = mega[np.argsort(lengths[mega], kind="stable")]
        batches += [mega[i : i + batch_size] for i in range(0, len(mega), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


class LengthGroupedBatches(Sampler[list[int]]):
    """Samples `length_grouped` batches, different ones every epoch (Lightning calls `set_epoch`).

    With `world` processes, each takes every world-th row of every batch, so that together they take the same steps as one
    process. A batch that cannot be divided evenly is filled up with its own first rows.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.lengths, self.batch_size, self.seed, self.rank, self.world = lengths, batch_size, seed, rank, world
        self.epoch = 0
        self.skip = 0  # batches to skip in the next epoch: a resumed run has already trained on them

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        batches = length_grouped(self.lengths, self.batch_size, np.random.default_rng([self.seed, self.epoch]))
        skip, self.skip = self.skip, 0
        for batch in batches[skip:]:
            filled = np.resize(batch, math.ceil(len(batch) / self.world) * self.world)  # repeats from the start
            yield filled[self.rank :: self.world].tolist()


def pad(tokens: Tokens, rows: Sequence[int], *, left: bool = False) -> dict[str, torch.Tensor]:
    """`tokens.padded` as tensors."""
    return {name: torch.from_numpy(values) for name, values in padded(tokens, rows, left=left).items()}


class BatchedRows(Dataset[dict[str, Any]]):
    """Rows that are fetched a batch at a time: `rows[indexes]` is a mapping, with `input_ids` for training."""

    @property
    def lengths(self) -> np.ndarray:
        """(n,) lengths by which rows are grouped into batches."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True)
class TokenRows(BatchedRows):
    """Tokenised rows: `rows[indexes]` is `pad` of these rows."""

    tokens: Tokens
    pad_left: ClassVar[bool] = False

    @property
    def lengths(self) -> np.ndarray:
        return self.tokens.lengths

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, indexes: list[int]) -> dict[str, torch.Tensor]:
        return pad(self.tokens, indexes, left=self.pad_left)


@dataclass(frozen=True)
class Rows(TokenRows):
    """Rows with training targets: `targets` (n, n_labels) float32 and `hard` (n,) int64, with the same names in a batch."""

    targets: np.ndarray
    hard: np.ndarray

    def repeated(self, times: int) -> Self:
        """The same rows, `times` times."""
        targets, hard = np.tile(self.targets, (times, 1)), np.tile(self.hard, times)
        return replace(self, tokens=self.tokens.repeated(times), targets=targets, hard=hard) if times > 1 else self

    def __getitem__(self, indexes: list[int]) -> dict[str, torch.Tensor]:
        return super().__getitem__(indexes) | {
            "targets": torch.from_numpy(self.targets[indexes]),
            "hard": torch.from_numpy(self.hard[indexes]),
        }
