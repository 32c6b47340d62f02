"""Synchronous iteration over what coroutines produce, in the caller's thread and at its pace."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

try:
    from uvloop import new_event_loop  # a quarter less CPU time per call
except ImportError:  # on Windows
    from asyncio import new_event_loop  # type: ignore[assignment]

T = TypeVar("T")


class AsyncBridge(Generic[T]):
    """Passes items from coroutines to the synchronous code that runs their loop.

    `put` returns once the caller has processed the items and asks for more: the next call starts only when a call's responses
    are stored, so a kill loses no more than the calls in flight, and nothing piles up.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: list[T] = []
        self._waiting: list[asyncio.Future[None]] = []  # one per `put` whose items are waiting
        self._handed: list[asyncio.Future[None]] = []  # one per `put` whose items the caller has
        self._changed = loop.create_future()

    async def put(self, items: Sequence[T]) -> None:
        self._items += items
        dealt_with = self._loop.create_future()
        self._waiting.append(dealt_with)
        self.wake()
        await dealt_with

    def wake(self) -> None:
        """Wake the caller: items have arrived, or no more will."""
        if not self._changed.done():
            self._changed.set_result(None)

    def take(self, run: Callable[[asyncio.Future[None]], None]) -> list[T]:
        """The items since the last call; `run` runs the loop until there are any. Empty: no more will arrive."""
        self._go_on(self._handed)
        run(self._changed)
        self._changed = self._loop.create_future()
        items, self._items = self._items, []
        self._handed, self._waiting = self._waiting, []
        return items

    def _go_on(self, handed: list[asyncio.Future[None]]) -> None:
        """Resume the coroutines that put these, one in each iteration of the loop.

        Resumed all at once, they would take every step of their next calls in lockstep, each waiting for all others, and
        never drift apart.
        """
        if handed:
            first = handed.pop(0)
            if not first.done():  # a cancelled one is done
                first.set_result(None)
            self._loop.call_soon(self._go_on, handed)


@contextmanager
def _interruptible(loop: asyncio.AbstractEventLoop) -> Iterator[Callable[[asyncio.Future[Any]], Any]]:
    """A function that runs the loop until a future is done, or Ctrl-C ends the wait for it.

    Python raises KeyboardInterrupt inside whichever callback is running, whose transport or task then logs it as its own
    error; here the wait is cancelled between two callbacks, and KeyboardInterrupt is raised afterwards.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield loop.run_until_complete
        return
    future: asyncio.Future[Any] | None = None  # the one that the loop is running
    interrupted = False

    def interrupt(*_: Any) -> None:
        nonlocal interrupted
        if future is None:
            raise KeyboardInterrupt
        interrupted = True
        loop.call_soon_threadsafe(future.cancel)

    def run(work: asyncio.Future[Any]) -> Any:
        nonlocal future, interrupted
        future = work
        try:
            return loop.run_until_complete(work)
        finally:
            future = None
            if interrupted:  # perhaps after the work was done
                interrupted = False
                raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield run
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _runner(loop: asyncio.AbstractEventLoop) -> Iterator[Callable[[asyncio.Future[Any]], Any]]:
    """A function that runs the loop until a future is done, in another thread if this one already runs a loop (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with _interruptible(loop) as run:
            yield run
    else:
        with ThreadPoolExecutor(1, "annotate") as thread:
            yield lambda future: thread.submit(loop.run_until_complete, future).result()


def iterate_async(work: Callable[[AsyncBridge[T]], Coroutine[Any, Any, None]]) -> Generator[list[T]]:
    """Iterate over what the coroutine puts into its bridge; closing the iterator cancels it.

    Its loop runs in the caller's thread, while the caller waits for items: passing responses to another thread costs a
    millisecond per call, since two threads take turns.
    """
    loop = new_event_loop()
    with _runner(loop) as run:
        bridge: AsyncBridge[T] = AsyncBridge(loop)
        main = loop.create_task(work(bridge))
        main.add_done_callback(lambda _: bridge.wake())
        try:
            while items := bridge.take(run):
                yield items
            main.result()
        finally:
            loop.call_soon_threadsafe(main.cancel)  # an interrupted caller may have left it running in another thread
            run(asyncio.gather(main, return_exceptions=True))
            loop.close()
