"""The interface of an annotator: requests in, responses out.

An engine keeps no files, except as `attach` describes. It yields responses in batches as they arrive, in any order;
`findistill.llm.annotate` writes each batch to the response cache at once and later requests only what the cache lacks. An
engine is therefore free to batch, queue and retry as it likes, as long as its responses to a request do not depend on other
requests or on their order.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from findistill.llm.prompts import Demonstration, Template


@dataclass(frozen=True)
class Request:
    """One text to label, its demonstrations (most similar last), and the sample numbers to draw.

    `votes` counts the labels of samples that an earlier run drew: early stopping continues from there.
    """

    id: str
    text: str
    demonstrations: tuple[Demonstration, ...]
    samples: tuple[int, ...]
    key: int = 0  # of its responses in the cache; 0: they are not cached
    votes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. `seed` is combined with a request's id and the sample's number, never with its position."""

    temperature: float
    seed: int
    concurrency: int = 32  # calls in flight at most; engines in this process ignore it
    retries: int = 2  # how often a sample is drawn again when its response names no label
    stop_at: int | None = None  # request no more samples of a text than `votes.needed` says


@dataclass(frozen=True)
class Response:
    """One response of the model, cached as one JSON line.

    An engine that reads the exact label distribution gives one response per text, with `log_probabilities` (label name ->
    natural logarithm at temperature 1, normalised over the labels) and no `raw`. An engine that samples gives one
    response per sample: `raw` as the model wrote it and the `label` parsed from it (None: unreadable). A failed call has its
    reason in `error` and is repeated by the next run.
    """

    id: str
    sample: int
    raw: str | None = None
    label: str | None = None
    rationale: tuple[str, ...] | None = None  # the text of each of the prompt's steps
    confidence: float | None = None  # the probability of the label as the model wrote it, where the server reports it
    log_probabilities: dict[str, float] | None = None
    cut: bool | None = None  # it ended at llm.max_tokens
    error: str | None = None
    # Costs that several samples share, such as one call for all, are on the first, so that sums over samples are right.
    attempts: int = 1  # calls made for it, failed and unreadable ones included
    tokens_in: int = 0  # of all attempts
    tokens_out: int = 0
    tokens_cached: int = 0  # of `tokens_in`, those that the server had in a cache
    seconds: float = 0.0
    cost: float | None = None  # US dollars; filled in by the runner, which knows the prices
    dropped: int | None = None  # demonstrations left out because the prompt was too long

    def parsed(self, template: Template) -> "Response":
        """A copy with label and rationale as `template` parses them from `raw`."""
        label = template.parse(self.raw or "", cut=bool(self.cut))
        confidence = self.confidence if label == self.label else None
        return replace(self, label=label, rationale=template.rationale(self.raw or ""), confidence=confidence)

    def for_sample(self, sample: int) -> "Response":
        """A copy for another sample of the same call; attempts, tokens and seconds stay on the first."""
        return replace(self, sample=sample, attempts=0, tokens_in=0, tokens_out=0, tokens_cached=0, seconds=0.0)

    def after(self, previous: "Response") -> "Response":
        """A copy with the attempts, tokens and seconds of an earlier attempt added."""
        added = ("attempts", "tokens_in", "tokens_out", "tokens_cached", "seconds")
        return replace(self, **{name: getattr(previous, name) + getattr(self, name) for name in added})


class Engine(ABC):
    """An annotator, built from the `llm` section with its settings as keyword arguments."""

    def exact(self, template: Template) -> bool:
        """Whether `responses` gives one label distribution per request instead of one response per sample."""
        return False

    @abstractmethod
    def responses(self, requests: Iterable[Request], template: Template, sampling: Sampling) -> Generator[list[Response]]:
        """Respond to every request, in batches as they finish. `template` is the return value of `prepare`.

        `requests` may be lazy: an engine that makes one call at a time takes the next request only when it can send it.

        Raises:
            UserError: the model cannot be reached, loaded or trusted with these settings.
        """

    def attach(self, folder: Path, keep: Callable[[int, Response], None]) -> None:  # noqa: B027
        """Set where to keep state that must outlive this process, such as requests that a server processes for hours.

        Most engines wait for each response and can ignore this.

        Args:
            folder: for this engine alone, next to the response cache; it need not exist.
            keep: caches, by its request's key, a response to an earlier run that is not requested now.
        """

    def calls(self, samples: int) -> int:
        """How many calls this many samples of a text take; each call costs the prompt again."""
        return 1

    def prepare(self, template: Template, sampling: Sampling) -> Template:
        """Check the model behind the engine, and return the template in the form in which requests will be sent.

        Raises:
            UserError: the model cannot be reached, loaded or trusted with these settings.
        """
        return template

    def read(self, response: Response, template: Template) -> Response:
        """A cached response, parsed again: the cache outlives the code that parsed it on arrival.

        By default unchanged, as for every engine whose labels do not come from `raw` alone.
        """
        return response

    def unreadable(self) -> str:
        """What to do if few responses name a label, for the error."""
        return "annotate.show_prompt=true prints the prompt"

    def failure(self, failed: int, total: int, texts: int, reason: str) -> str:
        """The error if too many of the `total` responses to `texts` failed, mostly for `reason`."""
        return (
            f"{failed} of {total} responses failed, mostly with: {reason}\n"
            "Run the same command again to repeat those calls; "
            f"annotate.max_failed={math.ceil(1000 * failed / total) / 1000:g} counts them as abstentions."
        )
