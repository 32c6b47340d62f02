"""The data of a training: length-grouped batches to train on, sorted ones to validate on."""

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Sampler, SequentialSampler

from findistill.models.batches import BatchedRows, LengthGroupedBatches
from findistill.models.tokens import sorted_batches

LARGE = 4  # times the batch size, where no gradients are kept


class InOrder(SequentialSampler):
    """Batches in the given order. With `trainer.overfit_batches`, Lightning accepts only a sequential sampler."""

    def __iter__(self) -> Iterator[Any]:
        yield from self.data_source  # type: ignore[misc]  # torch types it as Sized


class TrainingData(pl.LightningDataModule):
    """Batches of `rows`, different ones every epoch, and of `validation` rows, if there are any.

    Several processes share each batch of `rows`, but each validates on all rows: a metric counts every row once, and is the
    same in all of them.
    """

    def __init__(self, rows: BatchedRows, validation: BatchedRows | None, batch_size: int, seed: int) -> None:
        super().__init__()
        self.rows, self.validation, self.batch_size, self.seed = rows, validation, batch_size, seed

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        sampler: Sampler[Any] = LengthGroupedBatches(self.rows.lengths, self.batch_size, self.seed, rank, world)
        if self.trainer.overfit_batches:
            sampler = InOrder(list(sampler))
        return DataLoader(self.rows, batch_size=None, sampler=sampler)

    def val_dataloader(self) -> Any:
        assert self.trainer is not None
        if not self.validation:
            return []
        batches = sorted_batches(self.validation.lengths, LARGE * self.batch_size // self.trainer.world_size)
        return DataLoader(self.validation, batch_size=None, sampler=InOrder(batches))
