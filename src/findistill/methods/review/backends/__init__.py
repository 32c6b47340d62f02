"""Where people review. Each module has a class `Backend`, which is loaded by name (`review.backend`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from findistill.core.step import load
from findistill.methods.review.decisions import Decision, Question, Suggestion


@dataclass(frozen=True)
class Content:
    """What is there: texts by id, what reviewers decided, and what deserves a warning, a line each."""

    texts: dict[str, str] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Backend(Protocol):
    """`Backend(settings)`, of the `review` section. Everything it does may be cut short, and done again without harm.

    Attributes:
        place: where people review, in words, for messages.
        advice: what they do there.

    Raises:
        UserError: on whatever cannot be reached, refuses, or is not as expected.
    """

    place: str
    advice: str

    def check(self) -> None:
        """See, before anything is annotated, that it can be reached with this key."""

    def read(self, question: Question, known: dict[str, Suggestion]) -> Content:
        """What is there; nothing where nothing was pushed yet. `known` has every suggestion that there is."""

    def push(self, question: Question, suggestions: Sequence[Suggestion]) -> int:
        """Add those that are not there since `read`; returns how many. What is there stays as it is."""


def backend(settings: Any) -> Backend:
    """The configured back end."""
    instance: Backend = load(f"findistill.methods.review.backends.{settings.backend}:Backend")(settings)
    return instance
