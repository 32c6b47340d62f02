"""Annotate through any server that speaks OpenAI's chat protocol.

Servers differ silently: some ignore `n`, some ignore `temperature` and give one greedy answer for every sample, which
would look like perfect agreement. So the first two calls ask for random numbers and show what the server honours.
"""

import asyncio
import itertools
import logging
import os
import queue
import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from findistill.errors import UserError
from findistill.llm.engine import Answer, Sampling, Task
from findistill.llm.prompts import Demonstration, Template

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"
PROBE = "Write one line of 24 random digits, and nothing else."
SUSPECT_TEXTS = 20  # texts whose samples must all be alike before a server that failed the probe is refused
FAILURES_IN_A_ROW = 16  # at least; never fewer than the calls in flight


@dataclass(frozen=True)
class _Honours:
    """What the server was seen to do."""

    several: bool  # answers `n` with n choices
    sampling: bool  # two answers to the probe differed
    limit: str  # the name under which it takes the limit of tokens


class EndpointEngine:
    """An annotator behind HTTP; the fields are those of `settings.schema.EndpointLLM`.

    Raises:
        UserError: `llm.model` is not set, or the variable `llm.api_key_env` names is not set.
    """

    def __init__(
        self,
        model: str,
        *,
        name: str = "",
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        timeout_s: float = 60.0,
        max_retries: int = 5,
        max_tokens: int = 256,
    ) -> None:
        if not model or model == "???":
            raise UserError("llm.model is not set: name the model that the server is to use, llm.model=NAME.")
        if not os.environ.get(api_key_env):
            raise UserError(
                f"llm.api_key_env={api_key_env}: that environment variable is not set.\n"
                "Set it to your key (to any word for a server that wants none), or name another variable."
            )
        self.model = model
        self.base_url = base_url or OPENAI
        self.api_key_env = api_key_env
        self.timeout_s = timeout_s
        self.max_retries = max_retries
        self.max_tokens = max_tokens

    def exact(self, template: Template) -> bool:
        """False: servers give answers, not label distributions."""
        return False

    def answers(self, tasks: Sequence[Task], template: Template, sampling: Sampling) -> Iterator[list[Answer]]:
        """Answer every task with `sampling.concurrency` calls in flight, in the order in which replies come.

        A call that fails after the client's own retries gives an Answer with its `error`.

        Raises:
            UserError: the server refuses the key or the model, cannot be reached, fails call after call, or gives
                the same answer to every sample of a text in spite of a temperature.
        """
        from tqdm import tqdm

        # The calls run in a thread of their own, for a notebook's main thread already has an event loop.
        done: queue.Queue[list[Answer] | BaseException | None] = queue.Queue()
        loop = asyncio.new_event_loop()
        main = loop.create_task(self._run(tasks, template, sampling, done))

        def work() -> None:
            try:
                loop.run_until_complete(main)
                done.put(None)
            except BaseException as error:
                done.put(error)

        thread = threading.Thread(target=work, name="annotate", daemon=True)
        thread.start()
        total = sum(len(task.samples) for task in tasks)
        try:
            with tqdm(total=total, desc="annotate", unit="answer", disable=None) as bar:
                while (batch := done.get()) is not None:
                    if isinstance(batch, BaseException):
                        raise batch
                    yield batch
                    bar.update(len(batch))
        finally:
            loop.call_soon_threadsafe(main.cancel)  # of no effect where all is done
            thread.join()
            loop.close()

    async def _run(self, tasks: Sequence[Task], template: Template, sampling: Sampling, done: "queue.Queue[Any]") -> None:
        from openai import AsyncOpenAI

        async with AsyncOpenAI(
            api_key=os.environ[self.api_key_env],
            base_url=self.base_url,
            timeout=self.timeout_s,
            max_retries=self.max_retries,
        ) as client:  # fmt: skip
            honours = await self._probe(client, sampling)
            gate = _Gate(done, suspicious=not honours.sampling)
            calls = (
                (task, samples)
                for task in tasks
                for samples in ([task.samples] if honours.several else [(each,) for each in task.samples])
            )
            failed = 0
            limit = max(FAILURES_IN_A_ROW, sampling.concurrency)

            async def worker() -> None:
                nonlocal failed
                for task, samples in calls:
                    open_samples = samples
                    while open_samples:  # a server may give fewer choices than asked for
                        answers = await self._answer(client, task, open_samples, template, sampling, honours)
                        gate.put(answers)
                        open_samples = open_samples[len(answers) :]
                        failed = failed + 1 if answers[0].error else 0
                        if failed == limit:
                            raise UserError(
                                f"llm.base_url={self._address()}: {limit} calls failed in a row, the last with: "
                                f"{answers[0].error}\nWhat was answered is kept; run the same command again to go on."
                            )

            workers = [asyncio.create_task(worker()) for _ in range(max(1, sampling.concurrency))]
            try:
                await asyncio.gather(*workers)
            finally:
                for each in workers:
                    each.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
            gate.close()

    async def _probe(self, client: "AsyncOpenAI", sampling: Sampling) -> _Honours:
        """Two small calls: does the server give `n` choices, and do its samples differ?"""
        import openai

        hasty = client.with_options(max_retries=min(self.max_retries, 2))
        ask: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": PROBE}],
            "temperature": max(sampling.temperature, 1.0) if sampling.temperature else 0.0,
        }
        limit, n, calls = "max_tokens", 2, 0
        said: list[str | None] = []
        while calls < 2:
            extra: dict[str, Any] = {limit: 48, **({"n": n} if n > 1 else {})}
            try:
                reply = await hasty.chat.completions.create(**ask, **extra)
            except openai.BadRequestError as error:
                # The two parameters that servers are known to refuse; anything else is not ours to mend.
                if "max_completion_tokens" in str(error) and limit == "max_tokens":
                    limit = "max_completion_tokens"
                elif n > 1:
                    n = 1
                else:
                    raise UserError(f"llm.model={self.model} refuses the call: {self._reason(error)}") from error
                continue
            except openai.APIError as error:
                self._raise_if_hopeless(error)
                if isinstance(error, openai.APIConnectionError) and not isinstance(error, openai.APITimeoutError):
                    raise UserError(
                        f"llm.base_url={self._address()} cannot be reached: {self._reason(error)}\nIs the server on?"
                    ) from error
                log.info("the server's first answer failed (%s); going on with single calls", self._reason(error))
                return _Honours(several=False, sampling=True, limit=limit)
            calls += 1
            choices = reply.choices or []
            said += [choice.message.content for choice in choices]
            n = n if len(choices) >= n else 1
        if n == 1:
            log.info("the server gives one answer a call (it does not honour n): one call a sample")
        return _Honours(n > 1, sampling.temperature == 0 or len(set(said)) > 1, limit)

    async def _answer(
        self,
        client: "AsyncOpenAI",
        task: Task,
        samples: tuple[int, ...],
        template: Template,
        sampling: Sampling,
        honours: _Honours,
    ) -> list[Answer]:
        """The answers of one call, in the order of `samples`: one each, or fewer where fewer choices came back."""
        import openai

        cut = template.max_text_tokens
        shown = [Demonstration(_first_words(d.text, cut), d.label, d.rationale) for d in task.demonstrations]
        messages: Any = template.messages(shown, _first_words(task.text, cut))
        extra: dict[str, Any] = {honours.limit: self.max_tokens, **({"n": len(samples)} if len(samples) > 1 else {})}
        started = perf_counter()
        try:
            reply = await client.chat.completions.create(
                model=self.model, messages=messages, temperature=sampling.temperature, **extra
            )
        except openai.APIError as error:
            self._raise_if_hopeless(error)
            return [Answer(task.id, each, error=self._reason(error), seconds=perf_counter() - started) for each in samples]
        seconds = perf_counter() - started
        if not reply.choices:
            return [Answer(task.id, each, error="the server sent no choices", seconds=seconds) for each in samples]
        answers = []
        for place, (sample, choice) in enumerate(zip(samples, reply.choices, strict=False)):
            raw = choice.message.content or ""
            # A call's cost stands on its first sample, so that sums over samples are right.
            usage = reply.usage if place == 0 else None
            answers.append(
                Answer(
                    task.id, sample, raw=raw, label=template.parse(raw), rationale=template.rationale(raw),
                    tokens_in=usage.prompt_tokens if usage else 0, tokens_out=usage.completion_tokens if usage else 0,
                    seconds=seconds if place == 0 else 0.0,
                )
            )  # fmt: skip
        return answers

    def _raise_if_hopeless(self, error: Any) -> None:
        """Errors that every further call would meet too."""
        import openai

        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            raise UserError(
                f"llm.base_url={self._address()} refuses the key ({error.status_code}). "
                f"Put a valid one into the environment variable {self.api_key_env} (llm.api_key_env)."
            ) from error
        if isinstance(error, openai.NotFoundError):
            raise UserError(
                f"llm.model={self.model} at llm.base_url={self._address()}: not found (404).\n"
                "Check the model's name, and that the address ends as the server wants it, often in /v1."
            ) from error

    def _reason(self, error: Exception) -> str:
        """One line, without the key."""
        cause = f": {error.__cause__}" if error.__cause__ else ""
        line = " ".join(f"{type(error).__name__}: {error}{cause}".split())[:300]
        return line.replace(os.environ.get(self.api_key_env) or "\0", "***")

    def _address(self) -> str:
        return re.sub(r"//[^/@]*@", "//***@", self.base_url)


class _Gate:
    """Passes answers on; those of a server that failed the probe only once it was seen to sample."""

    def __init__(self, out: "queue.Queue[Any]", suspicious: bool) -> None:
        self.out = out
        self.suspicious = suspicious
        self.held: list[Answer] = []
        self.said: dict[str, list[str]] = defaultdict(list)

    def put(self, answers: list[Answer]) -> None:
        if not self.suspicious:
            self.out.put(answers)
            return
        self.held += answers
        for answer in answers:
            if answer.raw is not None:
                self.said[answer.id].append(answer.raw)
        alike = [each for each in self.said.values() if len(each) > 1]
        if any(len(set(each)) > 1 for each in alike):
            self.suspicious = False
            self.out.put(self.held)
        elif len(alike) >= SUSPECT_TEXTS:
            raise UserError(
                f"The server ignores annotate.temperature: all samples of {len(alike)} texts are alike, and so were two "
                "lines of random digits.\nAgreement would mean nothing. Configure sampling at the server, or choose "
                "annotate.samples=1 annotate.temperature=0."
            )

    def close(self) -> None:
        if self.suspicious and self.held:
            if any(len(each) > 1 for each in self.said.values()):
                log.warning("the server may ignore annotate.temperature: every text's samples are the same")
            self.out.put(self.held)


def _first_words(text: str, count: int) -> str:
    """The text up to its `count`-th word. A server's tokenizer is not at hand; a word is at least one token."""
    found = next(itertools.islice(re.finditer(r"\S+", text), count - 1, None), None)
    return text if found is None else text[: found.end()]
