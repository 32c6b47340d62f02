"""A tiny random BERT with a real tokenizer, and texts that a few words decide: training takes a second."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from findistill.data.labels import LabelSet
from findistill.learning.fit import Examples
from findistill.runs.weights import locate
from findistill.settings.schema import Encoder, Trainer

WORDS = {
    "negative": ["loss", "falls", "warns"],
    "neutral": ["meets", "holds", "opens"],
    "positive": ["gain", "beats", "rises"],
}
SUBJECTS = ["The bakery", "A shipping line", "Its Nordic rival with many small branches", "The fund"]


@pytest.fixture(scope="session")
def labels() -> LabelSet:
    return LabelSet(("negative", "neutral", "positive"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random BERT, 4 layers of width 32, and MiniLM's tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.05,
        attention_probs_dropout_prob=0.05,
        initializer_range=0.1,  # so small a model learns from a few rows only when its signals are not tiny
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate("embedded:minilm_l6")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder(tiny: Path) -> Encoder:
    return Encoder(name="tiny", model=str(tiny), epochs=3, batch_size=8, learning_rate=5e-3, max_length=16)


@pytest.fixture
def trainer() -> Trainer:
    return Trainer(accelerator="cpu", precision="32")


@dataclass(frozen=True)
class Corpus:
    train: Examples
    validation: Examples


@pytest.fixture(scope="session")
def corpus(labels: LabelSet) -> Corpus:
    """48 training and 24 validation rows; the vote shares give the label 6 of 8 votes and the next label 2."""
    rng = np.random.default_rng(0)

    def draw(n: int, start: int) -> Examples:
        hard = np.arange(n) % 3
        rng.shuffle(hard)
        texts = []
        for label in hard:
            first, second = rng.choice(WORDS[labels.names[label]], 2)
            texts.append(f"{rng.choice(SUBJECTS)} {first} and {second}" + " again" * int(rng.integers(0, 4)))
        targets = 0.75 * np.eye(3)[hard] + 0.25 * np.eye(3)[(hard + 1) % 3]
        return Examples([str(start + i) for i in range(n)], texts, targets.astype(np.float32), hard.astype(np.int64))

    return Corpus(draw(48, 0), draw(24, 48))
