"""Items produced by coroutines, iterated over in synchronous code."""

import asyncio
import signal
import time
from collections.abc import Iterator

import pytest

from findistill.llm.async_bridge import AsyncBridge, iterate_async


@pytest.fixture
def default_interrupts() -> Iterator[None]:
    """Python's default SIGINT handler: a test runner in the background ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_items_come_in_order_and_the_next_is_made_when_one_is_dealt_with() -> None:
    events = []

    async def work(bridge: AsyncBridge[int]) -> None:
        for item in range(3):
            events.append(f"put {item}")
            await bridge.put([item])

    for [item] in iterate_async(work):
        events.append(f"took {item}")
    assert events == ["put 0", "took 0", "put 1", "took 1", "put 2", "took 2"]


@pytest.mark.parametrize("last_item", [False, True])
def test_an_interrupt_waits_for_the_callback_it_arrives_in(default_interrupts: None, last_item: bool) -> None:
    """A transport interrupted by KeyboardInterrupt logs a traceback, so it is raised between callbacks, and never lost."""
    events = []

    async def work(bridge: AsyncBridge[int]) -> None:
        def callback() -> None:
            signal.raise_signal(signal.SIGINT)
            for _ in range(3):
                time.sleep(0.01)
            events.append("callback ended")

        if last_item:  # the caller has stopped waiting when the signal arrives
            bridge.wake()
        asyncio.get_running_loop().call_soon(callback)
        try:
            await asyncio.sleep(30)
        finally:
            events.append("work cancelled")

    with pytest.raises(KeyboardInterrupt):
        list(iterate_async(work))
    assert events == ["callback ended", "work cancelled"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
