"""Annotate through any server that speaks OpenAI's chat protocol.

Servers differ, and say nothing: some ignore `n`, some the schema, and some ignore the temperature and give one greedy
answer for every sample, which would look like perfect agreement. So a few calls find out first what the server honours;
one that does not sample is refused.

Nothing is gathered before it is asked: memory does not grow with the number of texts.
"""

import asyncio
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from math import exp
from typing import Any, Generic, TypeVar

from findistill.errors import UserError
from findistill.llm.engine import Answer, Sampling, Task
from findistill.llm.prompts import Demonstration, Template, one_line
from findistill.llm.server import FailedError, RefusedError, Reply, Server, key_in
from findistill.llm.votes import needed

log = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"
DIGITS = "Write one line of 24 random digits, and nothing else."
QUESTION = "In one short sentence: what is a share of a company?"
SAMPLING_CALLS = 4  # alike in all of these, answers are taken to be greedy
MOST_CHOICES = 128  # of one call, by OpenAI's reference
LONGEST_SPREAD_S = 1.0
CHARACTERS = 12  # a word, on average over a text: longer is no language, and a word of 100,000 characters is one word
TOO_LONG = re.compile(r"context[ _-]?(length|window|size)|(prompt|input).{0,20} too long|too many (input )?tokens", re.IGNORECASE)
DISPENSABLE = ("logprobs", "response_format", "n", "seed", "temperature")  # the first to be done without comes first

T = TypeVar("T")


@dataclass(frozen=True)
class Honours:
    """What a server was seen to do."""

    several: bool  # gives n different choices for `n`
    sampling: bool  # its answers to the same question differ
    schema: bool  # keeps to a JSON schema
    log_probabilities: bool  # of the tokens it writes
    seconds: float  # that its fastest answer took
    refused: frozenset[str] = frozenset()  # parameters that it does not take at all


class EndpointEngine:
    """An annotator behind HTTP; the fields are those of `settings.schema.EndpointLLM`.

    Raises:
        UserError: a setting is missing or impossible, or the variable that `llm.api_key_env` names holds no key.
    """

    def __init__(
        self,
        model: str,
        *,
        name: str = "",
        price: Any = None,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        timeout_s: float = 60.0,
        max_retries: int = 6,
        give_up_s: float = 300.0,
        max_tokens: int = 256,
        structured: str = "auto",
        extra_body: Mapping[str, Any] | None = None,
        tokenizer: str = "",
    ) -> None:
        if not model or model == "???":
            raise UserError("llm.model is not set: name the model that the server is to use, llm.model=NAME.")
        if structured not in ("auto", "always", "never"):
            raise UserError(f"llm.structured={structured}: choose auto, always or never.")
        if extra_body is not None and not isinstance(extra_body, Mapping):
            raise UserError(f"llm.extra_body={extra_body}: give fields and values, llm.extra_body={{top_p: 0.9}}.")
        if base_url is not None and not re.match(r"https?://[^/\s]+", base_url):
            shown = re.sub(r"[^/@]*@", "***@", base_url)
            raise UserError(f"llm.base_url={shown}: give the whole address, like http://127.0.0.1:8000/v1.")
        key_in(api_key_env)
        self.model = model
        self.base_url = base_url or OPENAI
        self.api_key_env = api_key_env
        self.timeout_s = timeout_s
        self.max_retries = max_retries
        self.give_up_s = give_up_s
        self.max_tokens = max_tokens
        self.structured = structured
        self.extra_body: dict[str, Any] = _plain(extra_body or {})
        self.honours: Honours | None = None

    def exact(self, template: Template) -> bool:
        """False: servers give answers, not label distributions."""
        return False

    def prepare(self, template: Template, sampling: Sampling) -> Template:
        """Find out with a few calls what the server honours (kept in `honours`), and say it in one log line.

        Returns:
            The template, `structured` where answers are to be JSON: as `llm.structured` says, and the server can.

        Raises:
            UserError: the server cannot be reached, refuses the calls or fails them, does not sample in spite of a
                temperature, or does not keep to the schema that `llm.structured=always` asks for.
        """

        async def work(outbox: _Outbox[Honours]) -> None:
            async with self._server(1) as server:
                await outbox.put([await self._probe(server, template, sampling)])

        [honours] = [each for batch in _driven(work) for each in batch]
        self._check(honours, sampling)
        self.honours = honours
        return replace(template, structured=honours.schema)

    def answers(self, tasks: Iterable[Task], template: Template, sampling: Sampling) -> Generator[list[Answer]]:
        """Answer every task with `sampling.concurrency` calls in flight, in the order in which replies come.

        A call that fails for good gives answers with their `error`. An answer that names no label is asked for again, up
        to `sampling.retries` times. Closing the iterator ends the calls. An error that `tasks` raises comes through.

        Raises:
            UserError: as `prepare`, which is called if it was not; or no call can succeed any more.
        """
        if self.honours is None:
            template = self.prepare(template, sampling)

        async def work(outbox: _Outbox[Answer]) -> None:
            run = _Run(self, template, sampling, outbox)
            waiting = iter(tasks)

            async def worker(place: float) -> None:
                await asyncio.sleep(place * run.spread)
                for task in waiting:  # shared: the next task is taken only when this worker can ask it
                    await run.answer(server, task)

            async with self._server(sampling.concurrency) as server:
                workers = [asyncio.create_task(worker(i / server.concurrency)) for i in range(server.concurrency)]
                try:
                    await asyncio.gather(*workers)
                finally:
                    for each in workers:
                        each.cancel()
                    await asyncio.gather(*workers, return_exceptions=True)
            if run.cut:
                log.info(
                    "%d texts were cut to prompt.max_text_tokens=%d words (or %d characters)",
                    run.cut, template.max_text_tokens, template.max_text_tokens * CHARACTERS,
                )  # fmt: skip

        yield from _driven(work)

    def body(self, refused: Collection[str], **fields: Any) -> dict[str, Any]:
        """The body of a call: these fields, without those that are None or refused, and `llm.extra_body` over them."""
        limit = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"  # OpenAI renamed it for newer models
        fields = {"model": self.model, limit: self.max_tokens, **fields}
        kept = {name: value for name, value in fields.items() if value is not None and name not in refused}
        return {**kept, **self.extra_body}

    def _server(self, concurrency: int) -> Server:
        return Server(self.base_url, self.api_key_env, concurrency, self.timeout_s, self.max_retries, self.give_up_s)

    # -- what the server honours ---------------------------------------------------------------------------------------

    async def _probe(self, server: Server, template: Template, sampling: Sampling) -> Honours:
        """Ask for random digits, which differ between samples of any model, and for JSON that nobody asked for in words."""
        refused: set[str] = set()

        async def ask(question: str, number: int, **fields: Any) -> Reply:
            fields |= {"messages": [{"role": "user", "content": question}], "seed": _seed(sampling.seed, "probe", number)}
            while True:
                body = self.body(refused, **fields)
                try:
                    return await server.ask(body)
                except RefusedError as refusal:
                    name = _culprit(str(refusal), body.keys() - self.extra_body.keys())
                    if name is None:
                        raise UserError(f"llm.model={self.model} at {server.address} refuses the call: {refusal}") from None
                    refused.add(name)

        # Warm enough for digits to differ; whether the server heeds any temperature is what is asked here.
        temperature = max(sampling.temperature, 1.0) if sampling.temperature else 0.0
        try:
            replies = [await ask(DIGITS, 0, temperature=temperature, n=2)]
            several = len(replies[0].choices) > 1
            replies.append(await ask(DIGITS, 1, temperature=temperature, n=2 if several else None, logprobs=True))
            while sampling.temperature and len(_said(replies)) < 2 and len(replies) < SAMPLING_CALLS:
                replies.append(await ask(DIGITS, len(replies), temperature=temperature))
        except FailedError as failure:
            raise UserError(f"llm.base_url={server.address} gives no usable answer: {failure}") from None
        if _said(replies) == {""}:
            raise UserError(
                f"llm.model={self.model} answers nothing within llm.max_tokens={self.max_tokens}: raise it, "
                "or switch off what the model thinks before it answers."
            )
        if sampling.temperature:  # choices that are copies of each other are no samples, whatever other calls give
            several = several and any(len(_said([reply])) > 1 for reply in replies)
        schema = False
        if self.structured != "never":
            form = {"response_format": _response_format(template)}
            try:
                reply = await ask(QUESTION, len(replies), temperature=sampling.temperature, **form)
                schema = _fits(_content(reply.choices[0]), template.schema)
            except FailedError:  # some servers break on a schema
                schema = False
        honours = Honours(
            several=several,
            sampling=len(_said(replies)) > 1,
            schema=schema,
            log_probabilities=bool(_tokens(replies[1].choices[0])),
            seconds=min(reply.seconds for reply in replies),
            refused=frozenset(refused),
        )
        words = {True: "yes", False: "no"}
        log.info(
            "%s: n %s, schema %s, log-probabilities %s, sampling %s%s", server.address, words[several],
            words[schema] if self.structured != "never" else "not asked for", words[honours.log_probabilities],
            words[honours.sampling] if sampling.temperature else "not asked for",
            f"; it refuses {', '.join(sorted(refused))}, which is done without" if refused else "",
        )  # fmt: skip
        return honours

    def _check(self, honours: Honours, sampling: Sampling) -> None:
        if sampling.temperature and not honours.sampling:
            raise UserError(
                f"The server ignores annotate.temperature={sampling.temperature:g}: all its answers are one and the same, and "
                "agreement would mean nothing.\nConfigure sampling at the server (its own fields: llm.extra_body={...}), "
                "or choose annotate.samples=1 annotate.temperature=0."
            )
        if self.structured == "always" and not honours.schema:
            raise UserError(
                "llm.structured=always: the server does not keep to a JSON schema.\n"
                "Choose llm.structured=auto, which asks for lines of text instead."
            )


class _Run:
    """The texts of one call to `answers`: what is common to them, and how one of them is answered."""

    def __init__(self, engine: EndpointEngine, template: Template, sampling: Sampling, outbox: "_Outbox[Answer]") -> None:
        assert engine.honours is not None
        self.engine = engine
        self.template = template
        self.sampling = sampling
        self.outbox = outbox
        self.refused = engine.honours.refused
        self.several = engine.honours.several
        # Calls that start together stay together, and each waits for all others to be read: they start evenly instead.
        self.spread = min(engine.honours.seconds, LONGEST_SPREAD_S)
        self.cut = 0  # texts
        self.fields: dict[str, Any] = {
            "temperature": sampling.temperature,
            "response_format": _response_format(template) if template.structured else None,
            "logprobs": True if engine.honours.log_probabilities else None,
        }

    async def answer(self, server: Server, task: Task) -> None:
        """Put the answers to one text into the outbox, call by call, until its votes need no more of them."""
        words = self.template.max_text_tokens
        text, cut = _cut(task.text, words)
        self.cut += cut
        shown = [_shown(each, words) for each in task.demonstrations]
        messages = self.template.messages(shown, text)
        votes, samples = Counter(task.votes), task.samples
        while count := needed(votes, len(samples), self.sampling.stop_at):
            answers = await self._asked(server, messages, task.id, samples, min(count, MOST_CHOICES) if self.several else 1)
            if shown and TOO_LONG.search(answers[0].error or ""):
                shown = shown[1:]  # the farthest; only the server knows what its model can hold
                messages = self.template.messages(shown, text)
                continue
            answers = [await self._readable(server, messages, each) for each in answers]
            if dropped := len(task.demonstrations) - len(shown):
                answers = [replace(each, dropped=dropped) for each in answers]
            await self.outbox.put(answers)
            votes.update(each.label for each in answers if each.label is not None)
            samples = samples[len(answers) :]

    async def _asked(
        self, server: Server, messages: list[dict[str, str]], task: str, samples: tuple[int, ...], count: int
    ) -> list[Answer]:
        """The answers of one call to the first `count` of the samples, or fewer where fewer choices come back.

        A text that is refused is so for every sample: all of them are answered with the reason.
        """
        try:
            try:
                reply = await server.ask(self._body(messages, task, samples[:count]))
            except RefusedError:
                if count == 1:
                    raise
                # Some servers take n=2, as the probe asked, and no more.
                reply = await server.ask(self._body(messages, task, samples[:1]))
                if self.several:
                    self.several = False
                    log.info("%s refuses n=%d: going on with one call a sample", server.address, count)
        except (RefusedError, FailedError) as error:
            lost = samples if isinstance(error, RefusedError) else samples[:count]
            first = Answer(task, lost[0], error=str(error), attempts=error.attempts, seconds=error.seconds)
            return [first, *(Answer(task, each, error=str(error), attempts=0) for each in lost[1:])]
        choices = zip(samples[:count], reply.choices, strict=False)
        return [self._read(task, sample, choice, reply, first=place == 0) for place, (sample, choice) in enumerate(choices)]

    async def _readable(self, server: Server, messages: list[dict[str, str]], answer: Answer) -> Answer:
        """The answer, asked for again while it names no label; what the attempts took is added up."""
        for again in range(1, self.sampling.retries + 1):
            if answer.label is not None or answer.error is not None:
                break
            past = answer
            try:
                reply = await server.ask(self._body(messages, answer.id, (answer.sample,), again))
                answer = self._read(past.id, past.sample, reply.choices[0], reply, first=True)
            except (RefusedError, FailedError) as error:
                answer = Answer(past.id, past.sample, error=str(error), attempts=error.attempts, seconds=error.seconds)
            answer = replace(
                answer,
                attempts=past.attempts + answer.attempts,
                tokens_in=past.tokens_in + answer.tokens_in,
                tokens_out=past.tokens_out + answer.tokens_out,
                seconds=past.seconds + answer.seconds,
            )
        return answer

    def _body(self, messages: list[dict[str, str]], task: str, samples: tuple[int, ...], again: int = 0) -> dict[str, Any]:
        return self.engine.body(
            self.refused,
            messages=messages,
            n=len(samples) if len(samples) > 1 else None,
            seed=_seed(self.sampling.seed, task, samples[0], again),
            **self.fields,
        )

    def _read(self, task: str, sample: int, choice: dict[str, Any], reply: Reply, first: bool) -> Answer:
        raw = _content(choice)
        label = self.template.parse(raw)
        return Answer(
            task, sample, raw=raw, label=label, rationale=self.template.rationale(raw),
            confidence=None if label is None else _confidence(_tokens(choice), self.template.words[label]),
            # What the choices of a call share stands on the first of them, so that sums over samples are right.
            attempts=reply.attempts if first else 0,
            tokens_in=reply.tokens_in if first else 0,
            tokens_out=reply.tokens_out if first else 0,
            seconds=reply.seconds if first else 0.0,
        )  # fmt: skip


# -- asking ------------------------------------------------------------------------------------------------------------


def _seed(*parts: object) -> int:
    """A number that depends on what is asked alone, not on when: 31 bits, which every server takes."""
    return int.from_bytes(blake2b(repr(parts).encode(errors="backslashreplace"), digest_size=4).digest(), "big") >> 1


def _cut(text: str, words: int) -> tuple[str, bool]:
    """The text on one line, up to so many words and characters in proportion, and whether that took something away.

    A server's tokenizer is not at hand; a word is at least one token.
    """
    whole = one_line(text)
    short = " ".join(whole[: words * CHARACTERS].split(" ")[:words])
    return short, len(short) < len(whole)


@lru_cache(maxsize=4096)  # the same few stand in every prompt
def _shown(demonstration: Demonstration, words: int) -> Demonstration:
    return replace(demonstration, text=_cut(demonstration.text, words)[0])


def _response_format(template: Template) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": template.schema}}


def _culprit(refusal: str, fields: Collection[str]) -> str | None:
    """The field to do without after a refusal: the one that it names, else the most dispensable; None: none is left."""
    if "max_completion_tokens" in refusal and "max_tokens" in fields:
        return "max_tokens"
    present = [name for name in DISPENSABLE if name in fields]
    return next((name for name in present if re.search(rf"\b{name}\b", refusal)), present[0] if present else None)


def _plain(value: Any) -> Any:
    """Dicts and lists of OmegaConf as plain ones."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, Iterable) and not isinstance(value, str) else value


# -- reading -----------------------------------------------------------------------------------------------------------


def _content(choice: Mapping[str, Any]) -> str:
    content = choice["message"].get("content")
    # Half a surrogate pair is valid in JSON, and cannot be written to a file.
    return content.encode(errors="replace").decode() if isinstance(content, str) else ""


def _said(replies: Iterable[Reply]) -> set[str]:
    return {_content(choice) for reply in replies for choice in reply.choices}


def _fits(content: str, schema: Mapping[str, Any]) -> bool:
    """Whether the content is one JSON object of a template's schema: its keys, strings, and one of the label words."""
    try:
        found = json.loads(content)
    except ValueError:
        return False
    if not isinstance(found, dict) or found.keys() != schema["properties"].keys():
        return False
    allowed = [each.get("enum", [each["const"]] if "const" in each else None) for each in schema["properties"].values()]
    return all(
        isinstance(value, str) and (choice is None or value in choice)
        for value, choice in zip((found[key] for key in schema["properties"]), allowed, strict=True)
    )


def _tokens(choice: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The tokens of a choice with their log-probabilities; none where the server gives none, or not as the protocol has it."""
    told = choice.get("logprobs")
    content = told.get("content") if isinstance(told, dict) else None
    if not isinstance(content, list):
        return []
    try:
        return [(str(each["token"]), float(each["logprob"])) for each in content]
    except (TypeError, KeyError, ValueError):
        return []


def _confidence(tokens: list[tuple[str, float]], word: str) -> float | None:
    """The probability of the tokens that write the word where it stands last; None where they do not write it."""
    word = word.lower()
    lowered = [token.lower() for token, _ in tokens]
    start = "".join(lowered).rfind(word)
    if start < 0:
        return None
    place, total = 0, 0.0
    for token, (_, log_probability) in zip(lowered, tokens, strict=True):
        if place < start + len(word) and place + len(token) > start:
            total += log_probability
        place += len(token)
    return exp(min(total, 0.0))


# -- the loop of the calls ---------------------------------------------------------------------------------------------


class _Outbox(Generic[T]):
    """Hands items from coroutines to the plain code that runs their loop.

    `put` returns once the caller has dealt with the items, and asks for more: a call's place is taken by the next one only
    when its answers are safe, so that a kill loses no more than the calls in flight, and nothing piles up.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: list[T] = []
        self._waiting: list[asyncio.Future[None]] = []  # a `put` each, of the items that wait now
        self._handed: list[asyncio.Future[None]] = []  # of those that the caller has
        self._changed = loop.create_future()

    async def put(self, items: Sequence[T]) -> None:
        self._items += items
        dealt_with = self._loop.create_future()
        self._waiting.append(dealt_with)
        self.wake()
        await dealt_with

    def wake(self) -> None:
        """Let the caller's turn come: something has come, or nothing will come any more."""
        if not self._changed.done():
            self._changed.set_result(None)

    def take(self, run: Callable[[asyncio.Future[None]], None]) -> list[T]:
        """What has come since the last call; `run` runs the loop until something has. Empty: nothing will come any more."""
        self._go_on(self._handed)
        run(self._changed)
        self._changed = self._loop.create_future()
        items, self._items = self._items, []
        self._handed, self._waiting = self._waiting, []
        return items

    def _go_on(self, handed: list[asyncio.Future[None]]) -> None:
        """Let the coroutines that put these go on, one in each turn of the loop.

        All at once they would take every step of their next calls side by side, and each would wait for all others;
        so calls that once came together would stay together.
        """
        if handed:
            first = handed.pop(0)
            if not first.done():  # a cancelled one is
                first.set_result(None)
            self._loop.call_soon(self._go_on, handed)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # a quarter less processor time a call
    except ImportError:  # on Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


@contextmanager
def _runner(loop: asyncio.AbstractEventLoop) -> Iterator[Callable[[asyncio.Future[Any]], Any]]:
    """What runs the loop until a future is done: this thread, or another one where this one's own loop runs, in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        yield loop.run_until_complete
    else:
        with ThreadPoolExecutor(1, "annotate") as thread:
            yield lambda future: thread.submit(loop.run_until_complete, future).result()


def _driven(work: Callable[[_Outbox[T]], Coroutine[Any, Any, None]]) -> Generator[list[T]]:
    """What the coroutine puts into its outbox; closing the iterator cancels it.

    Its loop runs while the caller waits for items, and in the caller's thread: handing answers to another thread costs a
    call a millisecond, for two threads take turns.
    """
    loop = _new_loop()
    with _runner(loop) as run:
        outbox: _Outbox[T] = _Outbox(loop)
        main = loop.create_task(work(outbox))
        main.add_done_callback(lambda _: outbox.wake())
        try:
            while items := outbox.take(run):
                yield items
            main.result()
        finally:
            loop.call_soon_threadsafe(main.cancel)  # an interrupted caller may have left it running in another thread
            run(asyncio.gather(main, return_exceptions=True))
            loop.close()
