"""The data module: every row once per epoch, split among the processes; validation rows longest first."""

from types import SimpleNamespace

import numpy as np
import pytest

from findistill.models.batches import Rows
from findistill.models.tokens import Tokens
from findistill.training.datamodule import LARGE, TrainingData


def rows(n: int) -> Rows:
    lengths = np.random.default_rng(0).integers(2, 9, n)
    offsets = np.cumsum([0, *lengths])
    return Rows(Tokens(np.ones(offsets[-1], np.int32), offsets, 0), np.zeros((n, 2), np.float32), np.arange(n))


def data(n: int = 22, validation: int = 30, **trainer: object) -> TrainingData:
    training_data = TrainingData(rows(n), rows(validation) if validation else None, 4, 0)
    training_data.trainer = SimpleNamespace(**({"global_rank": 0, "world_size": 1, "overfit_batches": 0} | trainer))  # type: ignore[assignment]
    return training_data


@pytest.mark.parametrize("world", [1, 2])
def test_every_row_is_learnt_from_once_an_epoch(world: int) -> None:
    ranks = [
        [batch["hard"].tolist() for batch in data(24, global_rank=rank, world_size=world).train_dataloader()]
        for rank in range(world)
    ]
    assert sorted(row for part in ranks for batch in part for row in batch) == list(range(24))
    assert len({len(part) for part in ranks}) == 1


def test_epochs_differ_unless_a_few_batches_are_to_be_overfitted() -> None:
    for overfit, same in ((0, False), (2, True)):
        loader = data(overfit_batches=overfit).train_dataloader()
        epochs = []
        for epoch in range(2):
            if hasattr(loader.sampler, "set_epoch"):
                loader.sampler.set_epoch(epoch)
            epochs.append([batch["hard"].tolist() for batch in loader])
        assert (epochs[0] == epochs[1]) == same


def test_validation_rows_come_longest_first_in_large_batches() -> None:
    batches = list(data().val_dataloader())
    lengths = [int(batch["attention_mask"].sum(1).max()) for batch in batches]
    assert lengths == sorted(lengths, reverse=True) and len(batches[0]["hard"]) == 4 * LARGE
    assert data(validation=0).val_dataloader() == []
