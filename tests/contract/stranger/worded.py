"""A third party's store without a keyword leg that gets one from the side-car: the memory store, and a file of words.

It can be told to end between the store's write and the words, the way kill -9 does. Databases share the file of words.
"""

import os
import uuid
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vectorkit.adapter import Adapter, Backend, KeywordQuery, Mode, Plan, Scope, Selector, Target, WriteReport
from vectorkit.errors import NotFound, Unsupported
from vectorkit.layers.sidecar import Sidecar
from vectorkit.memory import CAPABILITY, MemoryAdapter, _Data, _Shelf
from vectorkit.runtime import Runtime
from vectorkit.types import Batch, Cursor, Hits, Page, Record

DATABASE = ""
"""The database that the next connect opens."""
TOLD = True
"""Whether the side-car is told which one that is."""
PLACES: dict[tuple[str, str], _Data] = {}
IDENTITIES: weakref.WeakKeyDictionary[_Shelf, str] = weakref.WeakKeyDictionary()


class Killed(BaseException):
    """What no handler may take for an error of the store's."""


class Wordless(MemoryAdapter):
    """The memory store without keyword(). kill: end after the next write has reached it."""

    kill = False
    gets: list[int]
    pages = 0
    identities = 0

    def __init__(self, data: _Data) -> None:
        super().__init__(data)
        self.capability = replace(CAPABILITY, store="worded", keyword=False, keyword_statistics=None)
        self.gets = []

    def _maybe_killed(self) -> None:
        if self.kill:
            self.kill = False
            raise Killed

    async def identity(self, physical: str) -> str:
        self.identities += 1
        shelf = self._data.shelves.get((physical, ""))
        if shelf is None:
            raise NotFound(f"worded has no collection {physical!r}")
        return IDENTITIES.setdefault(shelf, str(uuid.uuid4()))

    async def write(self, scope: Scope, batch: Batch, mode: Mode) -> WriteReport:
        report = await super().write(scope, batch, mode)
        self._maybe_killed()
        return report

    async def delete(self, scope: Scope, selector: Selector) -> int:
        gone = await super().delete(scope, selector)
        self._maybe_killed()
        return gone

    async def get(self, scope: Scope, ids: Sequence[str], *, vectors: bool) -> list[Record]:
        self.gets.append(len(ids))
        return await super().get(scope, ids, vectors=vectors)

    async def page(self, scope: Scope, plan: Plan | None, cursor: Cursor | None, *, limit: int, vectors: bool) -> Page:
        self.pages += 1
        return await super().page(scope, plan, cursor, limit=limit, vectors=vectors)

    async def keyword(self, scope: Scope, query: KeywordQuery) -> Hits:
        raise AssertionError("the side-car answers this")


async def _open(target: Target, runtime: Runtime) -> Adapter:
    if target.read_only:
        raise Unsupported("worded has one owner, so there is no read_only=True")
    os.makedirs(target.path, exist_ok=True)  # noqa: PTH103
    inner = Wordless(PLACES.setdefault((target.path, DATABASE), _Data()))
    place = f"{target.shown} {DATABASE}" if TOLD else None
    words = Path(target.path) / "words.db"
    return await Sidecar.open(inner, words, runtime, shown=target.shown, own_lock=True, place=place)


BACKEND = Backend(store="worded", open=_open, place="directory")
