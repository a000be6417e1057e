"""A third party's store without a keyword leg that gets one from the side-car: the memory store, and a file of words.

It can be told to end between the store's write and the words, the way kill -9 does.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vectorkit.adapter import Adapter, Backend, KeywordQuery, Mode, Scope, Selector, Target, WriteReport
from vectorkit.errors import Unsupported
from vectorkit.layers.sidecar import Sidecar
from vectorkit.memory import CAPABILITY, MemoryAdapter, _Data
from vectorkit.runtime import Runtime
from vectorkit.types import Batch, Hits, Record

PLACES: dict[str, _Data] = {}


class Killed(BaseException):
    """What no handler may take for an error of the store's."""


class Wordless(MemoryAdapter):
    """The memory store without keyword(). kill: end after the next write has reached it."""

    kill = False
    gets: list[int]

    def __init__(self, data: _Data) -> None:
        super().__init__(data)
        self.capability = replace(CAPABILITY, store="worded", keyword=False, keyword_statistics=None)
        self.gets = []

    def _maybe_killed(self) -> None:
        if self.kill:
            self.kill = False
            raise Killed

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

    async def keyword(self, scope: Scope, query: KeywordQuery) -> Hits:
        raise AssertionError("the side-car answers this")


async def _open(target: Target, runtime: Runtime) -> Adapter:
    if target.read_only:
        raise Unsupported("worded has one owner, so there is no read_only=True")
    os.makedirs(target.path, exist_ok=True)  # noqa: PTH103
    inner = Wordless(PLACES.setdefault(target.path, _Data()))
    return await Sidecar.open(inner, Path(target.path) / "words.db", runtime, shown=target.shown, own_lock=True)


BACKEND = Backend(store="worded", open=_open, place="directory")
