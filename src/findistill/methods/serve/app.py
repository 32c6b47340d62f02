"""The endpoint: POST /predict with {"text": ...} or {"texts": [...]}, GET /health. This module needs fastapi."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from findistill.errors import UserError
from findistill.methods.serve.batching import Batcher, QueueFullError
from findistill.methods.serve.config import Serve

log = logging.getLogger(__name__)


class RefusedError(Exception):
    """A rejected request, with its status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def make_app(batcher: Batcher, limits: Serve, model: str, labels: tuple[str, ...]) -> FastAPI:
    """The application that answers through `batcher`, within the limits of the `serve` section."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()
        batcher.thread.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(title="findistill", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        state = {"status": "ok", "model": model, "labels": labels, "waiting": len(batcher.waiting)}
        return {**state, "batches": batcher.batches, "texts": batcher.texts}

    @app.post("/predict")
    async def predict(request: Request) -> JSONResponse:
        try:
            texts, single = texts_of(await body_of(request, limits), limits)
            rows = await batcher.submit(texts)
        except RefusedError as error:
            # The unread rest of the body would be taken for the next request.
            headers = {"Connection": "close"} if error.status in (408, 413) else None
            return JSONResponse({"error": str(error)}, error.status, headers)
        except QueueFullError:
            reason = f"the queue is full ({limits.queue} texts, serve.queue); try again"
            return JSONResponse({"error": reason}, 503, {"Retry-After": "1"})
        except UserError as error:
            log.warning("%s", error)
            return JSONResponse({"error": str(error)}, 500)
        return JSONResponse(rows[0] if single else {"predictions": rows})

    return app


async def body_of(request: Request, limits: Serve) -> bytes:
    """The body of a request. Raises RefusedError if it is too large or does not arrive in time."""
    most = limits.body_kb * 1024
    too_large = RefusedError(413, f"the body is larger than {limits.body_kb} KB (serve.body_kb)")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.timeout_s):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        raise RefusedError(408, f"the body did not arrive within {limits.timeout_s:g} s (serve.timeout_s)") from None
    return bytes(body)


def texts_of(body: bytes, limits: Serve) -> tuple[list[str], bool]:
    """The texts of a body, and whether it has a single `text`. Raises RefusedError for an invalid request."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is not JSON: {str(error)[:100]}") from None
    if not isinstance(value, dict) or set(value) not in ({"text"}, {"texts"}):
        raise RefusedError(422, 'send {"text": "..."} or {"texts": ["...", "..."]}')
    single = "text" in value
    texts = [value["text"]] if single else value["texts"]
    if not isinstance(texts, list) or not texts:
        raise RefusedError(422, "texts must be a list with at least one text")
    if len(texts) > limits.texts:
        raise RefusedError(413, f"{len(texts)} texts exceed the limit of {limits.texts} (serve.texts)")
    for number, text in enumerate(texts, 1):
        at = "" if single else f" {number}"
        if not isinstance(text, str) or not text.strip():
            raise RefusedError(422, f"text{at} is {'blank' if isinstance(text, str) else 'not a string'}")
        if len(text) > limits.characters:
            raise RefusedError(413, f"text{at} has {len(text):,} characters; limit {limits.characters:,} (serve.characters)")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RefusedError(422, f"text{at} contains an unpaired surrogate, which is half a character") from None
    return texts, single
