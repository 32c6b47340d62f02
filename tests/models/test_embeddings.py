import numpy as np
import pytest

from findistill.models import embeddings, sentence_encoder

TEXTS = [
    "Quarterly profit rose by a fifth on strong demand.",
    "Earnings climbed twenty percent as orders grew.",
    "The bakery on the corner sells rye bread.",
    "🚀",
    "",
]


def test_similar_texts_are_close_and_vectors_have_length_one() -> None:
    vectors = embeddings.embed(TEXTS)
    assert vectors.shape == (5, 384) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]


def test_batching_changes_neither_order_nor_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_encoder, "cpu_has_fast_bf16", lambda: False)
    together, one_by_one = embeddings.embed(TEXTS), embeddings.embed(TEXTS, batch_tokens=1)
    assert np.allclose(together, one_by_one, atol=1e-5)


def test_no_texts_give_no_rows() -> None:
    assert embeddings.embed([]).shape == (0, 384)
