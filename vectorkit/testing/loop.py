"""How long an event loop kept its other tasks waiting."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def longest_gap(work: Callable[[], Awaitable[object]]) -> float:
    """The longest time, in seconds, between two turns of a task that asks for one each millisecond while the work is done."""
    last = time.perf_counter()
    longest = 0.0

    def turn() -> None:
        nonlocal last, longest
        now = time.perf_counter()
        longest, last = max(longest, now - last), now

    async def tick() -> None:
        while True:
            turn()
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    try:
        await work()
        turn()  # the work may have held the loop to its end
    finally:
        ticking.cancel()
    return longest
