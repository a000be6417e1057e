"""One async body, two colours: what differs between running a coroutine inline over a sync client and awaiting it.

The sync colour drives a coroutine with `send(None)`: a sync client never suspends, so there is no loop, no thread and no
fork hazard, and it works inside a notebook. Bodies never import asyncio; they ask the runtime.
"""

import inspect
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from vectorkit.errors import Closed, DeadlineExceeded, InvalidArgument

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


def drive(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, and return its value. One that does suspend raises RuntimeError."""
    try:
        coro.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    coro.close()
    raise RuntimeError("a body suspended in the sync colour: an adapter awaited something that is not from its runtime")


class Deadline:
    """Seconds left of a bounded call. `remaining()` is what to hand to a client as its timeout."""

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and (
            isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0
        ):
            raise InvalidArgument(f"a deadline is a positive number of seconds, got {seconds!r}")
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float | None:
        """Seconds left, None without a deadline. Raises DeadlineExceeded when none are."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(f"the call took longer than {self.seconds} s")
        return left


class Runtime(Protocol):
    """What a body may ask for; `SYNC` and `AsyncRuntime` are the two colours."""

    colour: Literal["sync", "async"]

    async def call(self, fn: Callable[..., T | Awaitable[T]], /, *args: Any, **kwargs: Any) -> T:
        """Call a client's function and await the result only if it is awaitable."""

    def enter(self, cm: AbstractContextManager[T] | AbstractAsyncContextManager[T]) -> AbstractAsyncContextManager[T]:
        """A context manager of either colour, for `async with`."""

    async def offload(self, fn: Callable[[], T]) -> T:
        """Run blocking work: inline, or in a bounded pool of threads. Once begun it is finished, cancelled or not."""

    async def finish(self, coro: Coroutine[Any, Any, T]) -> T:
        """Await to the end: cancelled or not, what was begun is finished."""

    async def gather(self, *coros: Coroutine[Any, Any, Any]) -> list[Any]:
        """All results in order: in turn, or concurrently. The first failure ends the others and is raised."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def lock(self) -> AbstractAsyncContextManager[Any]:
        """A mutex for `async with`, of this colour."""

    def deadline(self, seconds: float | None) -> AbstractAsyncContextManager[Deadline]:
        """Bound a block: DeadlineExceeded when it takes longer. The sync colour cannot interrupt a client that does not
        take a timeout: it raises when the block next asks `remaining()`, or at its end."""

    async def close(self) -> None:
        """Release the pool, once what runs in it has ended. Twice is fine."""


@asynccontextmanager
async def _enter(cm: Any) -> AsyncIterator[Any]:
    if hasattr(cm, "__aenter__"):
        async with cm as value:
            yield value
    else:
        with cm as value:
            yield value


class _SyncLock:
    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def __aenter__(self) -> None:
        self._lock.acquire()

    async def __aexit__(self, *exc: object) -> None:
        self._lock.release()


class SyncRuntime:
    """Everything inline, in the caller's thread."""

    colour: Literal["sync", "async"] = "sync"

    async def call(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    def enter(self, cm: Any) -> AbstractAsyncContextManager[Any]:
        return _enter(cm)

    async def offload(self, fn: Callable[[], T]) -> T:
        return fn()

    async def finish(self, coro: Coroutine[Any, Any, T]) -> T:
        return await coro

    async def gather(self, *coros: Coroutine[Any, Any, Any]) -> list[Any]:
        done = []
        left = list(coros)
        try:
            while left:
                done.append(await left.pop(0))
        finally:
            for coro in left:
                coro.close()
        return done

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - the sync colour: nobody else is on this thread

    def lock(self) -> AbstractAsyncContextManager[Any]:
        return _SyncLock()

    @asynccontextmanager
    async def deadline(self, seconds: float | None) -> AsyncIterator[Deadline]:
        bound = Deadline(seconds)
        yield bound
        bound.remaining()

    async def close(self) -> None:
        pass


SYNC = SyncRuntime()


class AsyncRuntime:
    """On the caller's event loop; blocking work in a pool of `threads` of its own, made at first use."""

    colour: Literal["sync", "async"] = "async"

    def __init__(self, threads: int = 8) -> None:
        self._threads = threads
        self._pool: Any = None
        self._closed = False

    async def call(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        result = fn(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    def enter(self, cm: Any) -> AbstractAsyncContextManager[Any]:
        return _enter(cm)

    async def offload(self, fn: Callable[[], T]) -> T:
        import asyncio

        if self._closed:
            raise Closed("the store was closed; connect again")
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="vectorkit")
        return await _to_the_end(asyncio.get_running_loop().run_in_executor(self._pool, fn))

    async def finish(self, coro: Coroutine[Any, Any, T]) -> T:
        import asyncio

        return await _to_the_end(asyncio.ensure_future(coro))

    async def gather(self, *coros: Coroutine[Any, Any, Any]) -> list[Any]:
        import asyncio

        tasks = [asyncio.ensure_future(coro) for coro in coros]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def sleep(self, seconds: float) -> None:
        import asyncio

        await asyncio.sleep(seconds)

    def lock(self) -> AbstractAsyncContextManager[Any]:
        import asyncio

        return asyncio.Lock()

    @asynccontextmanager
    async def deadline(self, seconds: float | None) -> AsyncIterator[Deadline]:
        import asyncio

        bound = Deadline(seconds)
        try:
            async with asyncio.timeout(seconds):
                yield bound
        except TimeoutError as error:
            raise DeadlineExceeded(f"the call took longer than {seconds} s") from error

    async def close(self) -> None:
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is None:
            return
        import asyncio

        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def wait() -> None:  # off the loop, which has other tasks
            pool.shutdown(wait=True)
            loop.call_soon_threadsafe(ended.set_result, None)

        waiting = threading.Thread(target=wait, name="vectorkit-close")
        waiting.start()
        await _to_the_end(ended)
        waiting.join()


async def _to_the_end(work: "asyncio.Future[T]") -> T:
    """The work's result. What began is finished before a cancel goes on, however often it comes."""
    import asyncio

    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                continue
        if not work.cancelled():
            work.exception()  # retrieved, so that the loop does not warn
        raise


HEAVY = 256  # rows from which checking and packing take long enough to keep an event loop from its other tasks


async def heavy(runtime: Runtime, rows: int, work: Callable[[], T]) -> T:
    """Work that takes longer the more rows there are: here for few, off the event loop for many."""
    return work() if rows < HEAVY else await runtime.offload(work)
