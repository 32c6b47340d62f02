"""What an annotator is to the rest: something that turns tasks into answers.

An engine keeps no files. It yields answers in batches as they come, in any order; `findistill.llm.annotate` journals
every batch as it arrives and asks again only for what the journal lacks. So an engine is free in how it batches, queues
and retries, as long as its answers to one task do not depend on the other tasks or on their order.
"""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from findistill.llm.prompts import Demonstration, Template


@dataclass(frozen=True)
class Task:
    """One text to label, its worked examples (most similar last), and which of its samples are wanted.

    `votes` counts the labels of the samples that an earlier run has: early stopping goes on from there.
    """

    id: str
    text: str
    demonstrations: tuple[Demonstration, ...]
    samples: tuple[int, ...]
    votes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. `seed` is combined with a task's id and the sample's number, never with its position."""

    temperature: float
    seed: int
    concurrency: int = 32  # calls in flight at most; engines in this process ignore it
    retries: int = 2  # how often an answer that names no label is asked for again
    stop_at: int | None = None  # ask no more samples of a text than `votes.needed` says


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
    rationale: tuple[str, ...] | None = None  # what it says in each of the prompt's steps
    confidence: float | None = None  # the model's probability of the label as it wrote it, where the server tells
    log_probabilities: dict[str, float] | None = None
    error: str | None = None
    # What several samples share, such as one call for all of them, stands on the first, so that sums are right.
    attempts: int = 1  # calls made for it, failed and unreadable ones included
    tokens_in: int = 0  # of all attempts
    tokens_out: int = 0
    seconds: float = 0.0
    cost: float | None = None  # US dollars; filled in by `annotate`, which knows the prices
    dropped: int | None = None  # demonstrations left out of a prompt that was too long with them


class Engine(Protocol):
    """An annotator. Built by `findistill.settings.build` from the config's `llm` group, its fields as keywords."""

    def exact(self, template: Template) -> bool:
        """Whether `answers` gives one label distribution a task rather than one answer a sample."""
        ...

    def prepare(self, template: Template, sampling: Sampling) -> Template:
        """Find out what the model behind the engine honours, and give the template in the form it will be asked in.

        Raises:
            UserError: the model cannot be reached, loaded or trusted with these settings.
        """
        ...

    def answers(self, tasks: Iterable[Task], template: Template, sampling: Sampling) -> Generator[list[Answer]]:
        """Answer every task, in batches as they are finished. `template` is what `prepare` gave.

        `tasks` may be lazy: an engine that works by the call takes the next task only when it can ask it.

        Raises:
            UserError: the model cannot be reached, loaded or trusted with these settings.
        """
        ...
