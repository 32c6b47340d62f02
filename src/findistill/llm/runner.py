"""Request what the response cache lacks, within the budget, and track which samples exist.

Rows become requests when the engine has room for them; a complete row keeps only a state and a cache offset per sample, so
memory grows by a few bytes per sample.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from findistill.core.progress import ProgressMeter
from findistill.errors import UserError
from findistill.llm import calibration, pricing
from findistill.llm.cache import ResponseCache, request_key
from findistill.llm.config import LLM
from findistill.llm.curve import CostCurve
from findistill.llm.demonstrations import DemonstrationTable
from findistill.llm.engine import Engine, Request, Response, Sampling
from findistill.llm.identity import request_identity
from findistill.llm.prompts import Demonstration, Template
from findistill.llm.text import one_line
from findistill.llm.votes import needed

log = logging.getLogger(__name__)

SKIPPED, MISSING, FAILED, UNREADABLE, READABLE = range(5)  # states of a sample; SKIPPED: omitted by early stopping
EXAMPLE = 120  # characters of a response in an error
EARLY = 40  # responses after which a run that is far below `min_readable` stops


def prompt_key(
    text: str, demonstrations: tuple[Demonstration, ...], template: Template, identity: Any, sampling: tuple[float, int] | None
) -> int:
    """The cache key of a request: everything that determines its responses, apart from the sample's number.

    `identity` is the llm's `request_identity`; `sampling` the temperature and seed, None for exact distributions.
    """
    schema = template.schema if template.structured else None
    words = list(template.words.values())
    scoring = () if template.scoring == "sum" else (template.scoring,)
    messages = template.messages(demonstrations, text)
    return request_key(identity, sampling, words, template.max_text_tokens, schema, messages, *scoring)


@dataclass
class PromptRows:
    """The rows to request: texts first, then held-out pool rows, then content-free texts."""

    ids: "pd.Series[str]"
    texts: "pd.Series[str]"
    demonstrations: DemonstrationTable
    extra: list[tuple[str, str, int]] = field(default_factory=list)  # id, text, the row whose demonstrations it sees

    @classmethod
    def from_frames(cls, texts: pd.DataFrame, held_out: pd.DataFrame, demonstrations: DemonstrationTable) -> "PromptRows":
        extra = [(f"pool:{number}", text, len(texts) + number) for number, text in enumerate(held_out["text"])]
        return cls(texts["id"], texts["text"], demonstrations, extra)

    def add_content_free(self) -> None:
        """Add the content-free texts, under every distinct selection of demonstrations."""
        rows = range(len(self.texts)) if len(self.demonstrations.indexes) > 1 else range(1)
        self.extra += [
            (f"free:{row}:{number}", text, row) for row in rows for number, text in enumerate(calibration.CONTENT_FREE)
        ]

    def __len__(self) -> int:
        return len(self.texts) + len(self.extra)

    def __iter__(self) -> Iterator[tuple[str, str, tuple[Demonstration, ...]]]:
        """Id, text and demonstrations of each row."""
        for row_id, text, row in chain(zip(map(str, self.ids), self.texts, range(len(self.texts)), strict=True), self.extra):
            yield row_id, text, self.demonstrations.of(row)


@dataclass(frozen=True)
class AnnotationRunner:
    """Requests from an engine the responses that the cache lacks, within the budget."""

    engine: Engine
    template: Template
    sampling: Sampling
    samples: int
    cache: ResponseCache
    budget: pricing.Budget
    llm: LLM
    max_failed: float
    min_readable: float = 0.0  # share of responses that must name a label
    curve: CostCurve = field(default_factory=CostCurve)

    @cached_property
    def identity(self) -> dict[str, Any]:
        return request_identity(self.llm)

    def run(self, rows: PromptRows) -> "ResponseTable":
        """The responses to every row, from the cache or from the engine.

        Raises:
            UserError: the budget is spent, more than `max_failed` of the responses failed, or fewer than `min_readable` of
                them name a label; a far lower share ends the run early.
        """
        self.engine.attach(self.cache.path.with_suffix(".batches"), self._keep)
        table = ResponseTable(self.cache, self.engine, self.template, len(rows), self.samples, self.sampling.stop_at)
        with ProgressMeter(total=len(rows) * self.samples, desc="annotate", unit="response", leave=True) as progress:
            while True:
                in_flight = InFlight()
                requests = self._requests(rows, table, in_flight, progress)
                # Closed in any case, so that no call continues in the background after an error.
                with closing(self.engine.responses(requests, self.template, self.sampling)) as batches:
                    for batch in batches:
                        self._store(batch, table, in_flight)
                        progress.update(len(batch))
                        if table.answered >= EARLY:  # less than half the required share is not chance
                            self._check_readable(table, self.min_readable / 2)
                if not in_flight.over_budget:
                    break
                if not self.budget.allows(in_flight.over_budget):  # with nothing in flight, all reservations are released
                    raise UserError(
                        f"annotate.max_cost_usd={self.budget.limit:g}: ${self.budget.spent:.4f} is spent, and "
                        f"{table.complete} of {len(rows)} texts are done.\n"
                        "All responses are cached: raise the limit and run the same command again to resume."
                    )
        self.curve.log()
        if table.reused:
            log.info("reused %s cached responses", f"{table.reused:,}")
        self._check_failures(table)
        self._check_readable(table, self.min_readable)
        return table

    def _requests(self, rows: PromptRows, table: "ResponseTable", in_flight: "InFlight", progress: Any) -> Iterator[Request]:
        """Requests for what the cache lacks, built when the engine has room; ends early when the budget is used up."""
        sampling = None if self.engine.exact(self.template) else (self.sampling.temperature, self.sampling.seed)
        for row, (row_id, text, demonstrations) in enumerate(rows):
            key = prompt_key(text, demonstrations, self.template, self.identity, sampling)
            cached = table.load_cached(row, key)
            self.budget.spent += sum(response.cost or 0.0 for response in cached)
            progress.update(len(cached))
            if not table.needed(row):
                continue
            missing = table.missing(row)
            max_cost = self._max_cost(text, demonstrations, len(missing))
            if not self.budget.allows(max_cost):
                in_flight.over_budget = max_cost
                return
            self.budget.reserved += max_cost
            in_flight.rows[row_id] = (row, key, max_cost)
            yield Request(row_id, text, demonstrations, missing, key, table.votes(row))

    def _max_cost(self, text: str, demonstrations: tuple[Demonstration, ...], samples: int) -> float:
        """The most, in US dollars, that so many samples of a text can cost; 0 without a budget."""
        if self.budget.limit is None:
            return 0.0
        tokens_in = sum(pricing.token_bound(message["content"]) for message in self.template.messages(demonstrations, text))
        max_tokens_out = getattr(self.llm, "max_tokens", 0) * samples
        return pricing.cost(self.llm.price, tokens_in * self.engine.calls(samples), max_tokens_out) or 0.0

    def _cost(self, response: Response) -> float | None:
        return pricing.cost(self.llm.price, response.tokens_in, response.tokens_out, response.tokens_cached)

    def _keep(self, key: int, response: Response) -> None:
        """Cache a response to a request of an earlier run, unless it is cached already."""
        offset = self.cache.offsets([key])[0].get(response.sample)
        if offset is None or self.cache.read(offset).error:
            self.cache.add(key, replace(response, cost=self._cost(response)))

    def _store(self, batch: Sequence[Response], table: "ResponseTable", in_flight: "InFlight") -> None:
        """Cache responses and record them; a text that needs no more releases its reservation."""
        priced = [replace(each, cost=self._cost(each)) for each in batch]
        offsets = self.cache.append((in_flight.rows[each.id][1], each) for each in priced)
        for response, offset in zip(priced, offsets, strict=True):
            table.record(in_flight.rows[response.id][0], response, offset)
            self.budget.spent += response.cost or 0.0
        self.curve.add(priced)
        for row_id in {each.id for each in batch}:
            row, _, reserved = in_flight.rows[row_id]
            if not table.needed(row):  # failed calls are not repeated in this run
                table.complete += 1
                self.budget.reserved -= reserved
                del in_flight.rows[row_id]

    def _check_failures(self, table: "ResponseTable") -> None:
        failed, responses = table.states == FAILED, table.states >= FAILED
        if not failed.any():
            return
        # Every text counts equally, however many samples it has after early stopping or in a file of recorded answers.
        if (failed.sum(axis=1) / responses.sum(axis=1).clip(1)).mean() > self.max_failed:
            [(reason, _)] = Counter(table.errors(1000)).most_common(1)
            raise UserError(self.engine.failure(int(failed.sum()), int(responses.sum()), len(failed), str(reason)))

    def _check_readable(self, table: "ResponseTable", share: float) -> None:
        if not table.answered or table.readable >= share * table.answered:
            return
        response = table.unreadable()
        example = one_line(response.raw or "")[:EXAMPLE]
        limit = getattr(self.llm, "max_tokens", None)
        if response.cut and limit:
            remedy = f"It was truncated at llm.max_tokens={limit}: raise it, llm.max_tokens={8 * limit}"
        else:
            remedy = self.engine.unreadable()
        raise UserError(
            f"llm={self.llm.name}: {table.readable} of {table.answered} responses name {self.template.answer}; this one does "
            f"not: {example!r}\n"
            f"{remedy}; annotate.min_readable=0 counts such responses as abstentions."
        )


@dataclass
class InFlight:
    """The texts that the engine works on: id -> row, request key, dollars reserved. Bounded by the calls in flight."""

    rows: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    over_budget: float = 0.0  # dollars that the first text beyond the budget would need


class ResponseTable:
    """The samples of all rows: (rows, samples) states and cache offsets; votes only of rows that may need more samples.

    Cached responses are parsed when they are used, so labels come from the current parser.
    """

    def __init__(
        self, cache: ResponseCache, engine: Engine, template: Template, rows: int, samples: int, stop_at: int | None
    ) -> None:
        self.cache, self.engine, self.template, self.stop_at = cache, engine, template, stop_at
        self.states = np.full((rows, samples), MISSING, np.int8)
        self._votes: dict[int, Counter[str]] = {}
        self.offsets = np.zeros((rows, samples), np.int64)
        self.complete = 0  # texts that need no more responses
        self.reused = 0  # responses found in the cache
        self.answered = self.readable = 0  # responses that did not fail, and those of them that name a label

    def load_cached(self, row: int, key: int) -> list[Response]:
        """Record the cached responses of this row that are not recorded yet; failed calls stay missing."""
        loaded = []
        for sample, offset in self.cache.offsets([key])[0].items():
            if sample < self.states.shape[1] and self.states[row, sample] == MISSING:
                response = self._read(offset)
                if response.error is None:
                    self.record(row, response, offset)
                    loaded.append(response)
        self.reused += len(loaded)
        self.complete += bool(loaded) and MISSING not in self.states[row]
        return loaded

    def record(self, row: int, response: Response, offset: int) -> None:
        state = FAILED if response.error is not None else UNREADABLE if response.label is None else READABLE
        self.states[row, response.sample] = state
        self.answered += state != FAILED
        self.readable += state == READABLE
        self.offsets[row, response.sample] = offset
        if self.stop_at is not None and state == READABLE:
            self._votes.setdefault(row, Counter())[str(response.label)] += 1

    def unreadable(self) -> Response:
        """A response that names no label; preferably one that is not empty."""
        responses = [self.cache.read(int(offset)) for offset in self.offsets[self.states == UNREADABLE][:EARLY]]
        return next((each for each in responses if each.raw), responses[0])

    def missing(self, row: int) -> tuple[int, ...]:
        """Sample numbers without a response."""
        return tuple(np.flatnonzero(self.states[row] == MISSING).tolist())

    def votes(self, row: int) -> dict[str, int]:
        """The row's votes so far; empty without early stopping."""
        return dict(self._votes.get(row, {}))

    def needed(self, row: int) -> int:
        """How many more samples of the row to request; if votes settle it, the rest are marked as skipped."""
        number = needed(self.votes(row), len(self.missing(row)), self.stop_at)
        if not number and row in self._votes:
            del self._votes[row]
            self.states[row, self.states[row] == MISSING] = SKIPPED
        return number

    def errors(self, limit: int) -> list[str | None]:
        """The reasons of the first `limit` failed calls."""
        return [self.cache.read(int(offset)).error for offset in self.offsets[self.states == FAILED][:limit]]

    def responses(self, row: int) -> list[Response]:
        """The row's responses in the order of the samples; early stopping omits the last ones."""
        return [self._read(offset) for offset in self.offsets[row, self.states[row] >= FAILED].tolist()]

    def _read(self, offset: int) -> Response:
        response = self.cache.read(offset)
        return response if response.error else self.engine.read(response, self.template)

    def samples(self, rows: int) -> Iterator[list[Response]]:
        return (self.responses(row) for row in range(rows))

    def scores(self) -> list[dict[str, float]]:
        """The label log-probabilities of every row, where the engine reads exact distributions."""
        return [dict(self.responses(row)[0].log_probabilities or {}) for row in range(len(self.states))]
