"""Several answers of an annotator for one text, and what they add up to (self-consistency)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Votes:
    """How often each label was answered for one text.

    `counts` holds the labels in the order in which they were first answered; `n_samples` also counts the answers
    that named no label. Ties go to the tied label that was answered first.
    """

    counts: dict[str, int]
    n_samples: int

    def __post_init__(self) -> None:
        if min(self.counts.values(), default=1) < 1:
            raise ValueError(f"a label that was never answered has no place in the counts: {self.counts}")
        if self.n_valid > self.n_samples:
            raise ValueError(f"{self.n_valid} valid answers out of {self.n_samples}")

    @classmethod
    def from_answers(cls, answers: Sequence[str | None]) -> "Votes":
        """Count the labels of all answers, in the order given; None is an answer that named no label."""
        return cls(dict(Counter(answer for answer in answers if answer is not None)), len(answers))

    @property
    def n_valid(self) -> int:
        """The answers that named a label."""
        return sum(self.counts.values())

    @property
    def hard(self) -> str | None:
        """The majority label; None when no answer was valid."""
        return max(self.counts, key=self.counts.__getitem__, default=None)

    @property
    def agreement(self) -> int:
        """How many of all answers equal the majority label; 0 when no answer was valid."""
        return max(self.counts.values(), default=0)

    def soft(self, labels: Sequence[str]) -> list[float]:
        """The share of each of `labels` among the valid answers; all zero when no answer was valid.

        Raises:
            KeyError: a label was answered that is not in `labels`.
        """
        if unknown := self.counts.keys() - set(labels):
            raise KeyError(f"answered labels {sorted(unknown)} are not among {list(labels)}")
        return [self.counts.get(label, 0) / max(self.n_valid, 1) for label in labels]


def needed(votes: Mapping[Any, int], left: int, stop_at: int | None) -> int:
    """How many of the `left` further samples to ask for now: 0 once more of them would change nothing that matters.

    That is when a label has `stop_at` votes, or when none can reach them and the majority label cannot change any more.
    Rows with agreement >= `stop_at` are then the same ones, under the same label, as if all samples had been drawn
    (as long as `stop_at` is more than half of them).
    """
    if stop_at is None:
        return left
    first, second = [*sorted(votes.values(), reverse=True), 0, 0][:2]
    if first >= stop_at or (first + left < stop_at and first - second > left):
        return 0
    return min(left, max(1, stop_at - first))
