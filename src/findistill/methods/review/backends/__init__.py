"""Where people review. Each module has a class `Backend`, which is loaded by name (`review.backend`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from findistill.core.step import load
from findistill.methods.review.decisions import Decision, Question, Suggestion


@dataclass(frozen=True)
class Content:
    """The content of a back end: texts by id, reviewers' decisions, and warnings of one line each."""

    texts: dict[str, str] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Backend(Protocol):
    """`Backend(settings)`, with the `review` section. Every operation may be interrupted and safely repeated.

    Attributes:
        place: where people review, in words, for messages.
        advice: what they do there.

    Raises:
        UserError: it cannot be reached, refuses a request, or has unexpected content.
    """

    place: str
    advice: str

    def check(self) -> None:
        """Check, before anything is annotated, that it can be reached with this key."""

    def read(self, question: Question, known: dict[str, Suggestion]) -> Content:
        """The current content, empty if nothing was pushed yet. `known` has all suggestions."""

    def push(self, question: Question, suggestions: Sequence[Suggestion]) -> int:
        """Add the suggestions that `read` did not find; returns how many. Existing texts are unchanged."""


def backend(settings: Any) -> Backend:
    """The configured back end."""
    instance: Backend = load(f"findistill.methods.review.backends.{settings.backend}:Backend")(settings)
    return instance
