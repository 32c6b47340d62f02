"""Annotate through any server that speaks OpenAI's chat protocol.

The server is probed first (`findistill.llm.probe`); one that does not sample is rejected. Requests are consumed only as
they can be sent, so memory does not grow with the number of texts.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import MISSING

from findistill.errors import UserError
from findistill.llm import chat
from findistill.llm.async_bridge import AsyncBridge, iterate_async
from findistill.llm.config import EndpointLLM, address_fault
from findistill.llm.engine import Engine, Request, Response, Sampling
from findistill.llm.probe import ServerCapabilities, probe
from findistill.llm.prompts import Demonstration, Template
from findistill.llm.refusals import SYSTEM, TOO_LONG
from findistill.llm.replies import MOST_CHOICES, Answer, Reply
from findistill.llm.server import CallError, RefusedError, Server, api_key
from findistill.llm.text import CHARACTERS, truncate
from findistill.llm.votes import needed

log = logging.getLogger(__name__)

LONGEST_SPREAD_S = 1.0


@dataclass(eq=False)  # so that `__post_init__` is called
class EndpointEngine(EndpointLLM, Engine):
    """An annotator behind HTTP, created from its settings.

    Raises:
        UserError: the model is not set, the address is incomplete, or the variable that `llm.api_key_env` names holds no key.
    """

    def __post_init__(self) -> None:
        if self.model in ("", MISSING):
            raise UserError("llm.model is not set: name the model that the server should use, llm.model=NAME.")
        if self.extra_body is not None and not isinstance(self.extra_body, Mapping):
            raise UserError(f"llm.extra_body={self.extra_body}: must map fields to values: llm.extra_body={{top_p: 0.9}}.")
        if fault := address_fault(self.base_url):
            raise UserError(fault)
        api_key(self.api_key_env)
        self.capabilities: ServerCapabilities | None = None
        self.bodies = chat.BodyBuilder(self)
        self.estimates = False  # some token counts are estimates, which has been logged

    def read(self, response: Response, template: Template) -> Response:
        return response.parsed(template)

    def prepare(self, template: Template, sampling: Sampling) -> Template:
        """Probe with a few calls what the server supports (`capabilities`), and log it in one line.

        Returns:
            The template, `structured` if responses are to be JSON: as `llm.structured` says and the server supports.

        Raises:
            UserError: the server cannot be reached, refuses or fails the calls, does not sample despite a temperature, or
                ignores the schema that `llm.structured=always` requires.
        """

        async def work(bridge: AsyncBridge[ServerCapabilities]) -> None:
            async with Server(self, 1) as server:
                await bridge.put([await probe(server, self.bodies, template, sampling)])

        [capabilities] = [each for batch in iterate_async(work) for each in batch]
        capabilities.check(sampling, self.structured)
        self.capabilities = capabilities
        return replace(template, structured=capabilities.schema)

    def calls(self, samples: int) -> int:
        return 1 if self.capabilities is None or self.capabilities.several else samples

    def responses(self, requests: Iterable[Request], template: Template, sampling: Sampling) -> Generator[list[Response]]:
        """Respond to every request with `sampling.concurrency` calls in flight, in the order in which replies arrive.

        A call that fails permanently yields responses with `error` set. A response that names no label is requested again, up
        to `sampling.retries` times. Closing the iterator cancels the calls. Errors raised by `requests` propagate.

        Raises:
            UserError: as `prepare`, which is called if it has not been; or no further call can succeed.
        """
        if self.capabilities is None:
            template = self.prepare(template, sampling)

        async def work(bridge: AsyncBridge[Response]) -> None:
            queue = iter(requests)

            async def worker(place: float) -> None:
                await asyncio.sleep(place * run.spread)
                for request in queue:  # shared: the next request is taken only when this worker can send it
                    await run.respond(request)

            async with Server(self, sampling.concurrency) as server:
                run = EndpointRun(self, server, template, sampling, bridge)
                workers = [asyncio.create_task(worker(i / server.concurrency)) for i in range(server.concurrency)]
                try:
                    await asyncio.gather(*workers)
                finally:
                    for each in workers:
                        each.cancel()
                    await asyncio.gather(*workers, return_exceptions=True)
            run.log_truncated()

        yield from iterate_async(work)


class EndpointRun:
    """What the texts of one call to `responses` share, and the calls for each text."""

    def __init__(
        self, engine: EndpointEngine, server: Server, template: Template, sampling: Sampling, bridge: AsyncBridge[Response]
    ) -> None:
        assert engine.capabilities is not None
        self.bodies, self.server, self.template, self.sampling, self.bridge = engine.bodies, server, template, sampling, bridge
        self.engine = engine
        self.several = engine.capabilities.several
        # Calls that start together stay in lockstep, each waiting for all others to be read: starts are spread evenly.
        self.spread = min(engine.capabilities.seconds, LONGEST_SPREAD_S)
        self.truncated = 0  # texts
        self.accepted = self.guessed = False  # a call was; all guesses of what to omit have failed
        self.guessing = asyncio.Lock()
        self.fields: dict[str, Any] = {
            "temperature": sampling.temperature,
            "response_format": chat.response_format(template) if template.structured else None,
            "logprobs": True if engine.capabilities.log_probabilities and not template.free else None,
        }

    async def respond(self, request: Request) -> None:
        """Put the responses to one text into the bridge, call by call, until its votes need no more."""
        examples, text = self._shortened(request)
        messages = self.template.messages(examples, text)
        votes, samples = Counter(request.votes), request.samples
        while count := needed(votes, len(samples), self.sampling.stop_at):
            responses = await self._call(messages, request.id, samples, min(count, MOST_CHOICES) if self.several else 1)
            if examples and TOO_LONG.search(responses[0].error or ""):  # as servers word it
                examples = examples[1:]  # the least similar; only the server knows the context length
                messages = self.template.messages(examples, text)
                continue
            responses = [await self._retry_unreadable(messages, each) for each in responses]
            if dropped := len(request.demonstrations) - len(examples):
                responses = [replace(each, dropped=dropped) for each in responses]
            await self.bridge.put(responses)
            votes.update(each.label for each in responses if each.label is not None)
            samples = samples[len(responses) :]

    def _shortened(self, request: Request) -> tuple[list[Demonstration], str]:
        """Demonstrations and text of a request, cut to the template's limit."""
        words = self.template.max_text_tokens
        text, truncated = truncate(request.text, words)
        self.truncated += truncated
        return [each.truncated(words) for each in request.demonstrations], text

    def log_truncated(self) -> None:
        if self.truncated:
            log.info(
                "%d texts were truncated to %s=%d words (or %d characters)", self.truncated, self.template.text_limit,
                self.template.max_text_tokens, self.template.max_text_tokens * CHARACTERS,
            )  # fmt: skip

    async def _call(self, messages: list[dict[str, str]], request: str, samples: tuple[int, ...], count: int) -> list[Response]:
        """The responses of one call for the first `count` of the samples, or fewer if fewer choices come back.

        A refusal applies to every sample of the text: all of them get its reason as their error.
        """
        try:
            try:
                reply = await self._ask(messages, request, samples[:count])
            except RefusedError as refusal:
                if count == 1 or refusal.about_text:
                    raise
                # Some servers accept n=2, which the probe sent, but no more.
                reply = await self._ask(messages, request, samples[:1])
                if self.several:
                    self.several = False
                    log.info("%s refuses n=%d: continuing with one call per sample", self.server.address, count)
        except CallError as error:
            first = _failure(request, samples[0], error)
            return [first, *map(first.for_sample, samples[1:] if isinstance(error, RefusedError) else samples[1:count])]
        choices = zip(samples[:count], reply.choices, strict=False)
        first, *others = [self._read(request, sample, choice, reply) for sample, choice in choices]
        return [first, *(each.for_sample(each.sample) for each in others)]

    async def _retry_unreadable(self, messages: list[dict[str, str]], response: Response) -> Response:
        """The response, requested again while it names no label; tokens and seconds of all attempts are added up."""
        for attempt in range(1, self.sampling.retries + 1):
            if response.label is not None or response.error is not None:
                break
            previous = response
            try:
                reply = await self._ask(messages, response.id, (response.sample,), attempt)
                response = self._read(previous.id, previous.sample, reply.choices[0], reply)
            except CallError as error:
                response = _failure(previous.id, previous.sample, error)
            response = response.after(previous)
        return response

    async def _ask(self, messages: list[dict[str, str]], request: str, samples: tuple[int, ...], attempt: int = 0) -> Reply:
        """The reply, omitting parameters that the server refuses: those that a refusal names, else guessed ones."""
        fields = self._fields(messages, request, samples, attempt)
        while True:
            unsupported = frozenset(self.bodies.unsupported)
            try:
                reply = await self.server.ask(self.bodies.body(**fields))
            except RefusedError as refusal:
                if refusal.about_text or refusal.parameter == "n":
                    raise
                if refusal.parameter:
                    self._omit([refusal.parameter], refusal)
                    continue
                async with self.guessing:
                    guess = await self._guess(fields) if self.bodies.unsupported == unsupported else None
                if guess:
                    reply, names = guess
                    self._omit(names, refusal)
                elif self.bodies.unsupported != unsupported:  # another call has learnt what to omit
                    continue
                else:
                    raise
            self.accepted = True
            if reply.estimated and not self.engine.estimates:
                self.engine.estimates = True
                log.warning("%s reports no usage: tokens and cost are estimated from the texts", self.server.address)
            return reply

    def _fields(self, messages: list[dict[str, str]], request: str, samples: Sequence[int], attempt: int) -> dict[str, Any]:
        """The fields of a call, which do not depend on when it is made."""
        n = len(samples) if len(samples) > 1 else None
        seed = chat.request_seed(self.sampling.seed, request, samples[0], attempt)
        return {"messages": messages, "n": n, "seed": seed, **self.fields}

    def _omit(self, names: Iterable[str], refusal: RefusedError) -> None:
        names = set(names) - self.bodies.unsupported
        self.bodies.omit(names, refusal)
        if names:
            log.info("%s refuses %s (%s): continuing without", self.server.address, ", ".join(sorted(names)), refusal)

    async def _guess(self, fields: dict[str, Any]) -> tuple[Reply, tuple[str, ...]] | None:
        """The reply to a call without the system role or one optional field, or without all of them; None if nothing helps.

        For a server that refuses the very first calls without saying why. Once a call was accepted, refusals are about texts.
        """
        sent = self.bodies.body(**fields)
        names = [name for name in (SYSTEM, *chat.OPTIONAL) if name == SYSTEM or name in sent]
        for without in (*((name,) for name in names), tuple(names)):
            if self.accepted or self.guessed:
                return None
            try:
                return await self.server.ask(self.bodies.body(without, **fields)), without
            except RefusedError as refusal:
                if refusal.about_text:
                    return None
        self.guessed = True
        return None

    def _read(self, request: str, sample: int, answer: Answer, reply: Reply) -> Response:
        raw = self.server.mask_answer(answer.text)
        spent: dict[str, Any] = {
            "attempts": reply.attempts, "tokens_in": reply.usage.tokens_in, "tokens_out": reply.usage.tokens_out,
            "tokens_cached": reply.usage.cached, "seconds": reply.seconds,
        }  # fmt: skip
        if answer.refused:
            return Response(request, sample, error=f"the model refuses: {self.server.clean(answer.refused)}", **spent)
        label = self.template.parse(raw, cut=answer.cut)
        word = None if label is None or self.template.free else self.template.words[label]
        return Response(
            request, sample, raw=raw, label=label, cut=answer.cut or None, rationale=self.template.rationale(raw),
            confidence=None if word is None else chat.confidence(answer.tokens, word), **spent,
        )  # fmt: skip


def _failure(request: str, sample: int, error: CallError) -> Response:
    return Response(request, sample, error=str(error), attempts=error.attempts, seconds=error.seconds)
