"""Several samples of an annotator for one text, and their majority (self-consistency)."""

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Votes:
    """How many samples of one text named each label.

    `counts` holds the labels in the order in which they first occurred; `n_samples` also counts the samples
    that named no label. Ties go to the tied label that occurred first.
    """

    counts: dict[str, int]
    n_samples: int

    def __post_init__(self) -> None:
        if min(self.counts.values(), default=1) < 1:
            raise ValueError(f"counts must not contain labels without votes: {self.counts}")
        if self.n_valid > self.n_samples:
            raise ValueError(f"{self.n_valid} valid samples out of {self.n_samples}")

    @classmethod
    def from_labels(cls, labels: Sequence[str | None]) -> "Votes":
        """Count the labels of all samples, in their order; None is a sample that named no label."""
        return cls(dict(Counter(label for label in labels if label is not None)), len(labels))

    @property
    def n_valid(self) -> int:
        """The samples that named a label."""
        return sum(self.counts.values())

    @property
    def hard(self) -> str | None:
        """The majority label; None when no sample was valid."""
        return max(self.counts, key=self.counts.__getitem__, default=None)

    @property
    def agreement(self) -> int:
        """How many of all samples equal the majority label; 0 when none was valid."""
        return max(self.counts.values(), default=0)

    def soft(self, labels: Sequence[str]) -> list[float]:
        """The share of each of `labels` among the valid samples; all zero when none was valid.

        Raises:
            KeyError: there are votes for a label that is not in `labels`.
        """
        if unknown := self.counts.keys() - set(labels):
            raise KeyError(f"there are votes for {sorted(unknown)}, which are not among {list(labels)}")
        return [self.counts.get(label, 0) / max(self.n_valid, 1) for label in labels]


def needed(votes: Mapping[Any, int], missing: int, stop_at: int | None) -> int:
    """How many of the `missing` samples to request now: 0 once more of them would change nothing that matters.

    That is when a label has `stop_at` votes, or when none can reach that many and the majority label can no longer change.
    The rows with agreement >= `stop_at`, and their labels, are then the same as if all samples had been drawn
    (as long as `stop_at` is more than half of them).
    """
    if stop_at is None:
        return missing
    first, second = [*sorted(votes.values(), reverse=True), 0, 0][:2]
    if first >= stop_at or (first + missing < stop_at and first - second > missing):
        return 0
    return min(missing, max(1, stop_at - first))


def draw_labels(scores: Mapping[str, float], temperature: float, seed: str, number: int = 1) -> list[str]:
    """`number` labels drawn from softmax(log-probabilities / temperature); temperature 0 is the most probable label."""
    if temperature == 0:
        return [max(scores, key=scores.__getitem__)] * number
    top = max(scores.values())
    weights = [math.exp((value - top) / temperature) for value in scores.values()]
    return random.Random(seed).choices(list(scores), weights, k=number)


def certainty(candidates: Iterable[Mapping[str, Any]], n_valid: int) -> float:
    """The valid responses' agreement on a text's least certain candidate: the larger share, naming it or not.

    1 if they all name the same spans, or all none; 0.5 if half of them name a span; 0 without a valid response.
    """
    if not n_valid:
        return 0.0
    shares = (min(1.0, (each.get("votes") or 0) / n_valid) for each in candidates)
    return min((max(share, 1 - share) for share in shares), default=1.0)
