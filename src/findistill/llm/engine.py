"""What an annotator is to the rest: something that turns tasks into answers.

An engine keeps no files. It yields answers in batches as they come, in any order; `findistill.llm.annotate` journals
every batch as it arrives and asks again only for what the journal lacks. So an engine is free in how it batches, queues
and retries, as long as its answers to one task do not depend on the other tasks or on their order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from findistill.llm.prompts import Demonstration, Template


@dataclass(frozen=True)
class Task:
    """One text to label, its worked examples (most similar last), and which of its samples are wanted."""

    id: str
    text: str
    demonstrations: tuple[Demonstration, ...]
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. `seed` is combined with a task's id and the sample's number, never with its position."""

    temperature: float
    seed: int
    concurrency: int  # calls in flight; engines in this process ignore it


@dataclass(frozen=True)
class Answer:
    """One reply of the model. Journalled as it is, one JSON line each.

    An engine that reads the exact label distribution gives one answer a text, with `log_probabilities` (label name ->
    natural logarithm at temperature 1, normalised over the labels) and no `raw`. An engine that samples gives one
    answer a sample: `raw` as the model wrote it and the `label` read from it (None: unreadable). A call that failed
    has its reason in `error`, and is made again by the next run.
    """

    id: str
    sample: int
    raw: str | None = None
    label: str | None = None
    rationale: str | None = None
    log_probabilities: dict[str, float] | None = None
    error: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0


class Engine(Protocol):
    """An annotator. Built by `findistill.settings.build` from the config's `llm` group, its fields as keywords."""

    def exact(self, template: Template) -> bool:
        """Whether `answers` gives one label distribution a task rather than one answer a sample."""
        ...

    def answers(self, tasks: Sequence[Task], template: Template, sampling: Sampling) -> Iterator[list[Answer]]:
        """Answer every task, in batches as they are finished.

        Raises:
            UserError: the model cannot be reached, loaded or trusted with these settings.
        """
        ...
