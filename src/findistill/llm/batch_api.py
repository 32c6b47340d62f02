"""Annotate through OpenAI's Batch API: the requests of `findistill.llm.endpoint`, in files, at half the price.

Several batches are at the server at once. When one ends, its responses are passed on; unanswered requests (server error,
expired or cancelled batch, missing line) and responses that name no label go into the next batch.
`findistill.llm.batch_ledger` records the batches under way, so that the next run collects what a killed one submitted.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from findistill.errors import UserError
from findistill.llm.async_bridge import AsyncBridge, iterate_async
from findistill.llm.batch_calls import BatchRun, Line
from findistill.llm.batch_ledger import Batch, Ledger, line
from findistill.llm.batch_server import BatchServer, UnknownError
from findistill.llm.config import BatchLLM
from findistill.llm.endpoint import EndpointEngine
from findistill.llm.engine import Request, Response, Sampling
from findistill.llm.prompts import Template
from findistill.llm.server import CallError
from findistill.llm.text import read_json

log = logging.getLogger(__name__)

ENDED = ("completed", "failed", "expired", "cancelled")
FIRST_POLL_S = 1.0  # doubled up to llm.poll_s
CHUNK = 256  # responses passed on at once


@dataclass(eq=False)
class BatchEngine(BatchLLM, EndpointEngine):
    """An annotator behind a server's batch API; it probes with single calls, like `EndpointEngine`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._folder: Path | None = None
        self._keep: Callable[[int, Response], None] = lambda key, response: None

    def attach(self, folder: Path, keep: Callable[[int, Response], None]) -> None:
        self._folder, self._keep = folder, keep

    def responses(self, requests: Iterable[Request], template: Template, sampling: Sampling) -> Generator[list[Response]]:
        """Respond to every request, in batches, after collecting those that an earlier run submitted.

        A request that no batch answers yields responses with `error` set. Batches under way stay submitted if this ends early.

        Raises:
            UserError: as `EndpointEngine.responses`; or the server refuses a batch, does not know one of an earlier run, or
                takes longer than `wait_h`.
        """
        assert self._folder is not None, "call attach first: the next run has to know what was submitted"
        ledger = Ledger(self._folder)
        if self.capabilities is None:
            template = self.prepare(template, sampling)

        async def work(bridge: AsyncBridge[Response]) -> None:
            async with BatchServer(self, 1) as server:
                run = BatchRun(self, server, template, sampling, bridge).start(self.resubmit)
                await Batches(self, run, server, ledger, iter(requests), self._keep).work()
                run.log_truncated()

        yield from iterate_async(work)


class Batches:
    """Submits the calls that a run queues, and collects their results."""

    def __init__(
        self, settings: BatchLLM, run: BatchRun, server: BatchServer, ledger: Ledger, requests: Iterator[Request],
        keep: Callable[[int, Response], None],
    ) -> None:  # fmt: skip
        self.settings, self.run, self.server, self.ledger = settings, run, server, ledger
        self.requests, self.keep = requests, keep
        self.under_way: list[Batch] = []
        self.collected: list[Batch] = []  # may have calls in `run.again` that are not in the ledger yet
        self.most_batches, self.most_requests = settings.parallel, settings.max_requests
        self.deadline = time.monotonic() + 3600 * settings.wait_h
        self.tried = False  # a single call has been made
        self.progress: dict[str, tuple[Any, ...]] = {}  # as last logged

    async def work(self) -> None:
        for batch in self.ledger.load():
            self.run.expect(batch)
            self.under_way.append(batch)
        if self.under_way:
            calls = sum(len(batch.calls) for batch in self.under_way)
            log.info("collecting %d batches of an earlier run first (%s requests)", len(self.under_way), f"{calls:,}")
        for batch in self.under_way:
            await self._submit(batch)
        while True:
            await self._fill()
            while (self.run.again or self.run.fresh) and len(self.under_way) < self.most_batches:
                self.under_way.append(self.ledger.write([*self._next()]))
                self._forget()
                await self._submit(self.under_way[-1])
                await self._fill()
            if not self.under_way:
                return
            batch, state = await self._ended()
            await self._collect(batch, state)
            self._forget()

    async def _fill(self) -> None:
        """Take requests until a batch is full; the first is a single call, to find errors that would fail a whole batch."""
        while len(self.run.again) + len(self.run.fresh) < self.most_requests:
            request = next(self.requests, None)
            if request is None:
                return
            if self.tried or self.run.is_under_way(request):
                self.run.add(request)
            else:
                self.tried = True
                await self.run.respond(request)

    def _next(self) -> Iterator[Line]:
        """The calls of the next batch."""
        size, count = 0, 0
        while (queue := self.run.again or self.run.fresh) and count < self.most_requests:
            size += len(line(*queue[0][:2]).encode()) + 1
            if count and size > 1e6 * self.settings.max_mb:
                return
            count += 1
            yield queue.popleft()

    def _forget(self) -> None:
        """Remove batches from the ledger whose responses are cached and whose other calls are in another batch."""
        while self.collected and not self.run.again:
            self.ledger.remove(self.collected.pop())

    async def _submit(self, batch: Batch) -> None:
        """Upload and create a batch, resuming at the step where an earlier run was stopped."""
        if batch.batch:
            return
        path = self.ledger.requests(batch)
        try:
            if not batch.file:
                batch.file = await self.server.upload(path)
                self.ledger.save(batch)
            batch.batch = str((await self.server.create(batch.file, batch.name))["id"])
        except CallError as error:
            raise UserError(
                f"llm.base_url={self.server.address} does not accept batches: {error}\n"
                "Check that it supports OpenAI's /files and /batches; llm=endpoint sends the same requests one by one."
            ) from None
        self.ledger.save(batch)
        log.info("submitted %s: %s requests, %.1f MB", batch.batch, f"{len(batch.calls):,}", path.stat().st_size / 1e6)

    async def _ended(self) -> tuple[Batch, dict[str, Any]]:
        """Wait for a batch to end; returns it and its state."""
        pause = min(FIRST_POLL_S, self.settings.poll_s)
        while True:
            done = total = 0
            for batch in self.under_way:
                state = await self._state(batch)
                counts = state.get("request_counts") or {}
                completed, failed = (int(counts.get(name) or 0) for name in ("completed", "failed"))
                self._log_progress(batch, str(state["status"]), completed, failed)
                if state["status"] in ENDED:
                    return batch, state
                done, total = done + completed + failed, total + len(batch.calls)
            if time.monotonic() >= self.deadline:
                raise UserError(
                    f"llm.wait_h={self.settings.wait_h:g}: {done:,} of {total:,} requests in {len(self.under_way)} batches at "
                    f"{self.server.address} are done.\nRun the same command again to collect them; no request is sent twice."
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, self.settings.poll_s)

    async def _state(self, batch: Batch) -> dict[str, Any]:
        try:
            return {"status": "", **await self.server.retrieve(batch.batch)}
        except UnknownError:
            raise UserError(
                f"llm.base_url={self.server.address} does not know {batch.batch}, which an earlier run submitted: use a key of "
                f"the same project (llm.api_key_env={self.settings.api_key_env}).\nIf the batch no longer exists, delete "
                f"{self.ledger.requests(batch)}: its {len(batch.calls):,} requests are then sent again."
            ) from None
        except CallError as error:
            raise UserError(f"llm.base_url={self.server.address} does not return the status of {batch.batch}: {error}") from None

    def _log_progress(self, batch: Batch, status: str, completed: int, failed: int) -> None:
        progress = (status, (completed + failed) * 20 // max(1, len(batch.calls)))  # every 5%
        if self.progress.get(batch.name) != progress:
            self.progress[batch.name] = progress
            log.info("%s: %s, %s of %s requests completed, %d failed", batch.batch, status, f"{completed:,}",
                     f"{len(batch.calls):,}", failed)  # fmt: skip

    async def _collect(self, batch: Batch, state: dict[str, Any]) -> None:
        """Pass on the responses of a batch, and queue its unanswered calls again."""
        self.under_way.remove(batch)
        if state["status"] == "failed" and not state.get("output_file_id"):
            self._refused(batch, state)
            return
        calls = {call.custom_id: call for call in batch.calls}
        responses: list[Response] = []
        for kind in ("output_file_id", "error_file_id"):
            async for each in self._lines(batch, state.get(kind)):
                if call := calls.pop(str(each.get("custom_id")), None):
                    responses += self._settled(batch, call, each)
                if len(responses) >= CHUNK:
                    await self.run.bridge.put(responses)
                    responses = []
        reason = "missing from the output" if state["status"] == "completed" else f"batch status: {state['status']}"
        if calls:
            log.info("%s: %s unanswered requests (%s)", batch.batch, f"{len(calls):,}", reason)
        for call in calls.values():
            responses += self.run.settle(call, None, reason, batch.earlier(call))
        if responses:
            await self.run.bridge.put(responses)
        self.collected.append(batch)

    def _settled(self, batch: Batch, call: Any, each: dict[str, Any]) -> Iterator[Response]:
        for response in self.run.settle(call, each, "", batch.earlier(call)):
            if response.id:
                yield response
            else:
                self.keep(call.key, response)

    async def _lines(self, batch: Batch, file: str | None) -> Any:
        """The lines of a file on the server; none if it is gone."""
        if not file:
            return
        path = self.ledger.output(batch)
        try:
            await self.server.download(file, path)
        except UnknownError:
            log.warning("%s: the server no longer has the file %s", batch.batch, file)
            return
        except CallError as error:
            raise UserError(f"llm.base_url={self.server.address} does not return the output of {batch.batch}: {error}") from None
        with path.open("rb") as lines:
            for text in lines:
                if isinstance(each := read_json(text), dict):
                    yield each
        path.unlink()

    def _refused(self, batch: Batch, state: dict[str, Any]) -> None:
        """Handle a batch that the server rejected: if it exceeds a limit, retry with fewer batches at once or smaller ones.

        Raises:
            UserError: it was rejected for another reason, or has a single call.
        """
        errors = (state.get("errors") or {}).get("data") or [{}]
        code, message = str(errors[0].get("code")), self.server.clean(str(errors[0].get("message") or "no reason given"))
        if "limit" not in code or "billing" in code or len(batch.calls) == 1:
            self.ledger.remove(batch)
            model = f"llm.model={self.settings.model} at {self.server.address}"
            raise UserError(f"{model} rejected the batch {batch.batch}: {message}")
        if self.under_way:
            self.most_batches = len(self.under_way)
        else:
            self.most_requests = math.ceil(len(batch.calls) / 2)
        log.info("%s exceeds a limit (%s): continuing with %d batches at once, of up to %s requests", batch.batch, message,
                 self.most_batches, f"{self.most_requests:,}")  # fmt: skip
        bodies = self.ledger.bodies(batch)
        repeats = [call for call in batch.calls if self.run.wanted(call)]
        self.run.again.extendleft((call, bodies[call.custom_id], batch.earlier(call)) for call in reversed(repeats))
        self.collected.append(batch)
