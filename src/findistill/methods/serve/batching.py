"""Dynamic batching: one batch runs at a time, while the next one collects the requests that arrive."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Rows = list[dict[str, Any]]


class QueueFullError(Exception):
    """More texts would wait than are allowed."""


class Batcher:
    """Answers texts in batches, in its own thread.

    Args:
        answer: returns a row for each text, in order.
        batch_size: maximum texts per batch.
        wait_s: that the first text of a batch waits for others when no batch is running.
        limit: maximum waiting texts.
    """

    def __init__(self, answer: Callable[[Sequence[str]], Rows], batch_size: int, wait_s: float, limit: int) -> None:
        self.answer, self.batch_size, self.wait_s, self.limit = answer, batch_size, wait_s, limit
        self.waiting: deque[tuple[str, asyncio.Future[dict[str, Any]]]] = deque()
        self.arrived = asyncio.Event()
        self.thread = ThreadPoolExecutor(1, "model")
        self.batches = self.texts = 0

    async def submit(self, texts: Sequence[str]) -> Rows:
        """The rows of a request's texts.

        Raises:
            QueueFullError: there is no room for them.
        """
        if len(self.waiting) + len(texts) > self.limit:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in texts]
        self.waiting.extend(zip(texts, futures, strict=True))
        self.arrived.set()
        try:
            return list(await asyncio.gather(*futures))
        finally:  # nobody waits for those of a disconnected client
            for future in futures:
                future.cancel()

    async def run(self) -> None:
        """Process batches until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self.arrived.wait()
            if len(self.waiting) < self.batch_size and self.wait_s:
                await asyncio.sleep(self.wait_s)
            batch: list[tuple[str, asyncio.Future[dict[str, Any]]]] = []
            while self.waiting and len(batch) < self.batch_size:
                text, future = self.waiting.popleft()
                if not future.done():
                    batch.append((text, future))
            if not self.waiting:
                self.arrived.clear()
            if not batch:
                continue
            self.batches, self.texts = self.batches + 1, self.texts + len(batch)
            try:
                rows = await loop.run_in_executor(self.thread, self.answer, [text for text, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), row in zip(batch, rows, strict=True):
                if not future.done():
                    future.set_result(row)
