"""OpenAI's files and batches over HTTP: upload a request file, submit it as a batch, poll it, download its output.

Every call is retried as in `findistill.llm.server`, with one exception: a batch that may have been created without a reply
is looked up by its name before it is created again.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp

from findistill.llm import refusals
from findistill.llm.server import FailedError, RefusedError, Server
from findistill.llm.text import read_json

NAME = "findistill"  # the key of a batch's name in its metadata
LISTED = 100  # batches per page
MOST_PAGES = 50
CHAT = "/v1/chat/completions"


class UnknownError(RefusedError):
    """The server knows no such file or batch, or no such address."""


class BatchServer(Server):
    """A `Server` with the calls for files and batches."""

    async def upload(self, path: Path) -> str:
        """Upload a request file; returns its id.

        Raises:
            FailedError, RefusedError, UserError: as `Server.ask`, here and below.
        """

        def form() -> dict[str, Any]:  # rebuilt for each attempt, which reads the file to its end
            fields = aiohttp.FormData({"purpose": "batch"})
            fields.add_field("file", path.open("rb"), filename=path.name, content_type="application/jsonl")
            payload = fields()
            return {"data": payload, "headers": {"Content-Type": payload.content_type}}

        return str((await self._call("POST", "files", form))["id"])

    async def create(self, file: str, name: str) -> dict[str, Any]:
        """Submit an uploaded file as a batch of this name, or return the batch that has the name already."""
        body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", "metadata": {NAME: name}}
        for failures in itertools.count():
            if batch := await self._named(name):
                return batch
            try:
                return await self._call("POST", "batches", lambda: {"data": json.dumps(body)}, attempts=1)
            except FailedError:  # the request may have arrived
                if failures >= self.settings.max_retries:
                    raise
        raise AssertionError

    async def retrieve(self, batch: str) -> dict[str, Any]:
        """The current state of the batch."""
        return await self._call("GET", f"batches/{batch}")

    async def download(self, file: str, path: Path) -> None:
        """Download a file of the server to `path`."""
        await self._call("GET", f"files/{file}/content", into=path)

    async def _named(self, name: str) -> dict[str, Any] | None:
        after: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            page = await self._call("GET", "batches", query={"limit": str(LISTED), **after})
            batches = [each for each in page.get("data") or () if isinstance(each, dict)]
            for batch in batches:
                if (batch.get("metadata") or {}).get(NAME) == name:
                    return batch
            if not (page.get("has_more") and batches):
                return None
            after = {"after": str(batches[-1]["id"])}
        return None

    async def _call(
        self, method: str, place: str, arguments: Any = dict, *, query: dict[str, str] | None = None, into: Path | None = None,
        attempts: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """The JSON of a reply; with `into`, its body is written there instead."""
        most = self.settings.max_retries + 1 if attempts is None else attempts
        failures = 0
        while True:
            try:
                async with self._replied(method, place, query, arguments()) as response:
                    if into is None:
                        body = await response.read()
                        value = read_json(body)
                        if isinstance(value, dict):
                            return value
                        raise FailedError(f"the reply is not a JSON object: {self.clean(body[:4000].decode(errors='replace'))}")
                    with into.open("wb") as file:
                        async for part in response.content.iter_chunked(1 << 20):
                            file.write(part)
                    return {}
            except FailedError as error:
                pause = self._record_failure(error, failures)
                failures += 1
                await asyncio.sleep(pause)
                if failures >= most:
                    raise

    @asynccontextmanager
    async def _replied(
        self, method: str, place: str, query: dict[str, str] | None, arguments: dict[str, Any]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        # Files may take arbitrarily long; only a stalled connection times out.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30.0, sock_read=self.settings.timeout_s)
        with self._failures_as_errors():
            url = self._place(place, query or {})
            async with self._session.request(method, url, allow_redirects=False, timeout=timeout, **arguments) as response:
                self._reached = True
                if response.status >= 300:
                    refusal = refusals.read(await response.read())
                    if response.status == 404:
                        raise UnknownError(f"404: {self.clean(refusal.message) or '(empty)'}")
                    self.raise_for(response.status, response.headers, refusal, {"messages": []})
                yield response
                self._record_success()

    def _place(self, place: str, query: dict[str, str]) -> str:
        parts = urlsplit(self.base_url)
        whole = "&".join(filter(None, (parts.query, urlencode(query))))
        return parts._replace(path=f"{parts.path.rstrip('/')}/{place}", query=whole, fragment="").geturl()
