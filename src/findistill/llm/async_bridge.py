"""Plain iteration over what coroutines produce, in the caller's thread and at its pace."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

try:
    from uvloop import new_event_loop  # a quarter less processor time a call
except ImportError:  # on Windows
    from asyncio import new_event_loop  # type: ignore[assignment]

T = TypeVar("T")


class AsyncBridge(Generic[T]):
    """Hands items from coroutines to the plain code that runs their loop.

    `put` returns once the caller has dealt with the items, and asks for more: a call's place is taken by the next one only
    when its responses are safe, so that a kill loses no more than the calls in flight, and nothing piles up.
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


@contextmanager
def _interruptible(loop: asyncio.AbstractEventLoop) -> Iterator[Callable[[asyncio.Future[Any]], Any]]:
    """What runs the loop until a future is done, or Ctrl-C ends the wait for it.

    Python raises KeyboardInterrupt in whatever callback the loop is in, and the transport or task that it belongs to then
    logs it as an error of its own; here the wait is cancelled between two callbacks, and then it is raised.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield loop.run_until_complete
        return
    future: asyncio.Future[Any] | None = None  # that the loop runs for
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
            if interrupted:  # perhaps when the work was done already
                interrupted = False
                raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield run
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _runner(loop: asyncio.AbstractEventLoop) -> Iterator[Callable[[asyncio.Future[Any]], Any]]:
    """What runs the loop until a future is done: this thread, or another one where this one's own loop runs, in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with _interruptible(loop) as run:
            yield run
    else:
        with ThreadPoolExecutor(1, "annotate") as thread:
            yield lambda future: thread.submit(loop.run_until_complete, future).result()


def iterate_async(work: Callable[[AsyncBridge[T]], Coroutine[Any, Any, None]]) -> Generator[list[T]]:
    """What the coroutine puts into its bridge; closing the iterator cancels it.

    Its loop runs while the caller waits for items, and in the caller's thread: handing responses to another thread costs a
    call a millisecond, for two threads take turns.
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
