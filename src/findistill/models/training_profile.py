"""A profile of a classifier's training texts, in a small file next to its weights, to detect drift of later texts."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from findistill.core.files import read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "training_profile.json"


@dataclass(frozen=True)
class TrainingProfile:
    """Statistics of the texts that a model was trained on.

    Attributes:
        pieces: ids of the tokenizer's pieces that occur in them.
        unseen: the share of pieces outside these to expect in further texts of the same kind, by Good and Turing: the share of
            pieces that occurred once.
        labels: the share of each label.
    """

    pieces: list[int]
    unseen: float
    labels: Mapping[str, float]

    @classmethod
    def of(cls, ids: np.ndarray, tokenizer: "PreTrainedTokenizerBase", labels: Iterable[str]) -> "TrainingProfile":
        """The profile of texts with these concatenated token ids, and of the labels of those that have one."""
        pieces, times = np.unique(ids[~np.isin(ids, added_tokens(tokenizer))], return_counts=True)
        count = Counter(labels)
        shares = {name: times / count.total() for name, times in sorted(count.items())}
        return cls(pieces.tolist(), float((times == 1).sum() / max(1, times.sum())), shares)

    @classmethod
    def read(cls, folder: Path) -> "TrainingProfile | None":
        """The profile of the model in `folder`; None if it has none."""
        with suppress(OSError, ValueError, TypeError):
            return cls(**read_json(folder / FILE))
        return None

    def write(self, folder: Path) -> None:
        write_json(folder / FILE, asdict(self))

    def is_unseen(self, size: int) -> np.ndarray:
        """(size,) bool: whether each piece of the vocabulary occurs in none of the texts."""
        unseen = np.ones(size, bool)
        unseen[[piece for piece in self.pieces if piece < size]] = False
        return unseen


def added_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Ids of tokens that stand for no part of a text: the special tokens except the unknown token."""
    return [number for number in tokenizer.all_special_ids if number != tokenizer.unk_token_id]


def distance(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Total variation between two sets of label shares: the share of texts that would have to change their label."""
    return sum(abs(first.get(name, 0.0) - second.get(name, 0.0)) for name in {*first, *second}) / 2


def copy(source: Path, target: Path) -> None:
    """Copy the profile of the model in one folder, if it has one, to another folder."""
    if profile := TrainingProfile.read(source):
        profile.write(target)
