import numpy as np
import pytest

from findistill.data import neighbours
from findistill.data.labels import LabelSet
from findistill.data.neighbours import nearest, neighbour_vote


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_nearest_agrees_with_sorting_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    queries, pool = unit(random.normal(size=(37, 8))), unit(random.normal(size=(50, 8)))
    monkeypatch.setattr(neighbours, "_CHUNK_CELLS", 500)  # ten queries at a time
    indexes, similarities = nearest(queries, pool, 5)
    expected = np.argsort(-(queries @ pool.T), axis=1, kind="stable")[:, :5]
    assert (indexes == expected).all()
    assert np.allclose(similarities, np.take_along_axis(queries @ pool.T, expected, 1))


def test_equal_similarities_keep_the_order_of_the_pool() -> None:
    pool = unit(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]))
    indexes, _ = nearest(pool[1:2], pool, 2)
    assert indexes.tolist() == [[1, 2]]


@pytest.mark.parametrize(("k", "pool_size", "columns"), [(9, 3, 3), (4, 0, 0), (0, 3, 0)])
def test_k_is_cut_to_the_pool(k: int, pool_size: int, columns: int) -> None:
    pool = unit(np.ones((pool_size, 4))) if pool_size else np.zeros((0, 4), np.float32)
    indexes, similarities = nearest(unit(np.ones((2, 4))), pool, k)
    assert indexes.shape == similarities.shape == (2, columns)


def test_vote_shares_and_ties_by_similarity() -> None:
    labels = LabelSet(("negative", "neutral", "positive"))
    pool_labels = ["positive", "negative", "negative", "neutral"]
    indexes = np.array([[0, 1, 2], [0, 3, 3], [3, 0, 0]])
    similarities = np.array([[0.9, 0.5, 0.1], [0.9, 0.2, 0.1], [0.2, 0.9, 0.9]])
    shares = neighbour_vote(similarities, indexes, pool_labels, labels)
    assert np.allclose(shares.sum(1), 1)
    assert shares.argmax(1).tolist() == [0, 1, 2]  # two votes beat one close neighbour
    assert np.allclose(shares[0], [2 / 3, 0, 1 / 3], atol=1e-3)
    tie = neighbour_vote(np.array([[0.9, 0.3]]), np.array([[0, 1]]), pool_labels, labels)
    assert tie[0].argmax() == 2 and tie[0, 2] - tie[0, 0] < 1e-3


def test_without_neighbours_the_vote_is_even() -> None:
    shares = neighbour_vote(np.zeros((2, 0)), np.zeros((2, 0), int), [], LabelSet(("a", "b")))
    assert shares.tolist() == [[0.5, 0.5]] * 2
