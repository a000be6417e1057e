"""One awaitable face over both colours, so that a test body is written once and runs on `Store` and on `AsyncStore`.

The sync colour is driven inline with `send(None)`, without a loop, which also proves that a sync store never suspends.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypeVar, cast

import vectorkit as vk
from vectorkit.runtime import drive
from vectorkit.testing.table import shown

if TYPE_CHECKING:
    from vectorkit.aio import AsyncCollection, AsyncStore

    AnyStore: TypeAlias = AsyncStore
    AnyCollection: TypeAlias = AsyncCollection

T = TypeVar("T")
Colour: TypeAlias = Literal["sync", "async"]
COLOURS: tuple[Colour, ...] = ("sync", "async")
_HANDLES = frozenset(["Store", "Collection", "TenantCollection"])
_PLAIN = frozenset(["tenant", "scan"])


class Clock:
    """What `connect(clock=…)` is given: time stands still until a test moves it."""

    def __init__(self, now: datetime = datetime(2024, 2, 29, 12, 0, 0, 654321, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> datetime:
        """Move on by a timedelta's keywords; the new now."""
        self.now += timedelta(**by)
        return self.now


class _Awaitable:
    """A sync handle that looks like its async twin."""

    __slots__ = ("_handle",)

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._handle, name)
        if isinstance(getattr(type(self._handle), name, None), property) or not callable(found):
            return found
        if name in _PLAIN:
            return lambda *args, **kwargs: _wrap(found(*args, **kwargs))

        async def call(*args: Any, **kwargs: Any) -> Any:
            return _wrap(found(*args, **kwargs))

        return call


def _wrap(value: Any) -> Any:
    if type(value).__name__ in _HANDLES and type(value).__module__.startswith("vectorkit."):
        return _Awaitable(value)
    if isinstance(value, Iterator):
        return _each(value)
    return value


async def _each(rows: Iterator[T]) -> AsyncIterator[T]:
    for row in rows:
        yield row


class Bench:
    """What a test body works at: a clock, and stores of one colour opened on one target, all closed at the end."""

    def __init__(self, target: Any, colour: Colour) -> None:
        self.target = target
        self.colour: Colour = colour
        self.clock = Clock()
        self.capability: dict[str, str] = {}
        """The store's capability as the table shows it, from the last connect."""
        self._open: list[Any] = []
        self._loop = asyncio.Runner() if colour == "async" else None

    def run(self, body: Coroutine[Any, Any, T]) -> T:
        """Drive a body to its end: inline, or on the loop of this test."""
        return drive(body) if self._loop is None else self._loop.run(body)

    async def connect(self, **options: Any) -> "AnyStore":
        """Another handle on the target."""
        options.setdefault("clock", self.clock)
        store: Any
        if self.colour == "sync":
            store = _Awaitable(vk.connect(self.target, **options))
        else:
            store = await vk.aconnect(self.target, **options)
        self._open.append(store)
        self.capability = shown(store.capability)
        return cast("AnyStore", store)

    async def reopen(self, store: "AnyStore", **options: Any) -> "AnyStore":
        """Close a handle and connect again."""
        await store.close()
        return await self.connect(**options)

    async def together(self, *bodies: Coroutine[Any, Any, Any]) -> list[Any]:
        """All results: concurrently in the async colour, in turn in the sync one."""
        if self._loop is None:
            return [await body for body in bodies]
        return list(await asyncio.gather(*bodies))

    async def _close_all(self) -> None:
        while self._open:
            await self._open.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.run(self._close_all())
        finally:
            if self._loop is not None:
                self._loop.close()
