from findistill.models import sentence_encoder


def test_batches_hold_every_row_once_within_the_bound() -> None:
    lengths = [3, 200, 7, 7, 30, 1, 255]
    batches = list(sentence_encoder._batches(lengths, 60))
    assert sorted(row for batch in batches for row in batch) == list(range(7))
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 60 for batch in batches)
