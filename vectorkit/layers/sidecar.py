"""Keyword search for a store that has none: an adapter around its adapter, with an FTS5 index in an SQLite file of its own.

The store stays the truth. Ids are marked before the store is written and unmarked with their words, so that whatever ends
between the two is read again from the store before the next keyword answer.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from vectorkit.adapter import Adapter, Change, KeywordQuery, Mode, Plan, Query, Scope, Selector, WriteReport
from vectorkit.errors import Closed, Corrupt, NotFound, Unsupported
from vectorkit.filters import Node
from vectorkit.layers.wordfile import WordFile
from vectorkit.local.lock import DirectoryLock
from vectorkit.runtime import Runtime
from vectorkit.types import Batch, CollectionSpec, Cursor, Hits, Page, Record, Stats, make_hit

T = TypeVar("T")
PAGE = 1_000
WIDEST = (
    4_000  # candidates that are read to apply a filter; after that the matching rows are listed, and searched among
)
LOCK_TIMEOUT = 1.0


class Sidecar:
    """`inner` with keyword search. Writes of a handle go one after another, so that words follow in the store's order.

    What another process writes to the store is not seen: its rows have no words here, and rows that it deleted are left out.
    """

    def __init__(self, inner: Adapter, words: WordFile, runtime: Runtime, lock: DirectoryLock | None) -> None:
        self._inner = inner
        self._words = words
        self._runtime = runtime
        self._lock = lock
        self._writes = runtime.lock()
        self._texts: dict[str, bool] = {}
        self._pid = os.getpid()
        self._closed = False
        self.capability = replace(inner.capability, keyword=True, keyword_statistics="tenant", read_only=False)

    @classmethod
    async def open(cls, inner: Adapter, path: Path, runtime: Runtime, *, shown: str, own_lock: bool) -> "Sidecar":
        """Open or make the file. own_lock: no lock of the store covers it, so one is taken beside it. Locked, Corrupt."""
        named = f"{shown}: the keyword index {path.name}"

        def make() -> tuple[WordFile, DirectoryLock | None]:
            lock = DirectoryLock(path.with_name(path.name + ".lock"), named, LOCK_TIMEOUT) if own_lock else None
            try:
                return WordFile(path, named), lock
            except BaseException as error:
                if lock is not None:
                    lock.release()
                if isinstance(error, Corrupt):
                    raise Corrupt(f"{named} is damaged; delete {path}, and it is made again from the store") from error
                raise

        index, lock = await runtime.offload(make)
        made = cls(inner, index, runtime, lock)
        try:
            names = set(await inner.names())
            await made._forget([p for p in index.known if p.rpartition("@")[0] not in names])
        except BaseException:
            await made.close()
            raise
        return made

    @property
    def native(self) -> Any:
        return self._inner.native

    def plan(self, spec: CollectionSpec, where: Node) -> Plan:
        return self._inner.plan(spec, where)

    async def _do(self, act: Callable[[], T]) -> T:
        if self._closed:
            raise Closed(f"{self.capability.store} was closed; connect again")
        if os.getpid() != self._pid:
            raise Closed(
                f"{self.capability.store} was opened before this process was forked; connect again in the child"
            )
        return await self._runtime.offload(act)

    # ------------------------------------------------------------------------------------- collections

    async def create(self, spec: CollectionSpec) -> CollectionSpec:
        made = await self._inner.create(spec)
        self._texts[made.physical] = made.text
        if made.text:
            await self._do(lambda: self._words.add(made.physical, whole=True))
        return made

    async def adopt(self, name: str, spec: CollectionSpec, rows: Iterable[Record] | None) -> CollectionSpec:
        return await self._known(await self._inner.adopt(name, spec, rows))

    async def describe(self, name: str) -> CollectionSpec:
        return await self._known(await self._inner.describe(name))

    async def _known(self, spec: CollectionSpec) -> CollectionSpec:
        """A collection that this file has not seen is read whole before its first keyword answer; its forerunners are gone."""
        self._texts[spec.physical] = spec.text
        await self._forget([p for p in self._of_name(spec.name) if int(p.rpartition("@")[2]) < spec.generation])
        if spec.text:
            await self._do(lambda: self._words.add(spec.physical, whole=False))
        return spec

    async def _forget(self, physicals: Iterable[str]) -> None:
        for physical in physicals:
            self._texts.pop(physical, None)
            await self._do(lambda gone=physical: self._words.remove(gone))  # type: ignore[misc]

    async def names(self) -> list[str]:
        return await self._inner.names()

    async def drop(self, name: str) -> None:
        async with self._writes:
            gone = self._of_name(name)
            await self._inner.drop(name)
            await self._forget(gone)

    def _of_name(self, name: str) -> list[str]:
        return [physical for physical in self._words.known if physical.rpartition("@")[0] == name]

    async def _kept(self, scope: Scope) -> bool:
        """Whether the collection has words; one that this handle never described is described now."""
        kept = self._texts.get(scope.collection)
        if kept is None or (kept and scope.collection not in self._words.known):
            spec = await self.describe(scope.collection.rpartition("@")[0])
            if spec.physical != scope.collection:
                raise NotFound(f"{self.capability.store}: the collection {spec.name!r} was dropped")
            kept = spec.text
        return kept

    # ------------------------------------------------------------------------------------- writes

    async def _marked(self, scope: Scope, ids: Sequence[str] | None, write: Callable[[], Awaitable[T]]) -> T:
        """Mark, then write; a write that fails leaves its marks, and the next keyword query looks at the store."""
        await self._do(lambda: self._words.mark(scope.collection, ids))
        try:
            return await write()
        except BaseException:
            self._words.behind.add(scope.collection)
            raise

    async def write(self, scope: Scope, batch: Batch, mode: Mode) -> WriteReport:
        if not await self._kept(scope):
            return await self._inner.write(scope, batch, mode)
        async with self._writes:
            report = await self._marked(scope, batch.ids, lambda: self._inner.write(scope, batch, mode))
            if report.skipped:
                await self._heal(scope, batch.ids)
            else:
                pairs = zip(batch.ids, batch.texts or (), strict=False)
                texts = {id: text for id, text in pairs if text is not None}  # noqa: A001
                await self._do(lambda: self._words.put(scope.collection, batch.ids, texts))
            return report

    async def update(self, scope: Scope, ids: Sequence[str], change: Change) -> int:
        return await self._inner.update(scope, ids, change)

    async def delete(self, scope: Scope, selector: Selector) -> int:
        if not await self._kept(scope):
            return await self._inner.delete(scope, selector)
        async with self._writes:
            if selector.ids is not None:
                return await self._delete_ids(scope, selector.ids, selector.plan)
            if selector.plan is not None:
                gone = 0
                while ids := await self._matching(scope, selector.plan):
                    deleted = await self._delete_ids(scope, ids, selector.plan)
                    gone += deleted
                    if not deleted:
                        break
                return gone
            gone = await self._marked(scope, None, lambda: self._inner.delete(scope, selector))
            await self._rebuild(scope)
            return gone

    async def _delete_ids(self, scope: Scope, ids: Sequence[str], plan: Plan | None) -> int:
        chosen = Selector(ids=ids, plan=plan)
        gone = await self._marked(scope, ids, lambda: self._inner.delete(scope, chosen))
        if gone == len(ids):
            await self._do(lambda: self._words.put(scope.collection, ids, {}))
        else:  # some stayed, or were not there
            await self._heal(scope, ids)
        return gone

    async def _matching(self, scope: Scope, plan: Plan) -> list[str]:
        ids: list[str] = []
        cursor: Cursor | None = None
        while True:
            page = await self._inner.page(scope, plan, cursor, limit=PAGE, vectors=False)
            ids += [record.id for record in page.records if plan.where.matches(record.metadata)]
            cursor = page.cursor
            if cursor is None:
                return ids

    # ------------------------------------------------------------------------------------- after a crash

    async def _heal(self, scope: Scope, ids: Sequence[str]) -> None:
        """The words of these ids as the store has them now, expired rows too."""
        every = Scope(collection=scope.collection)
        for start in range(0, len(ids), PAGE):
            part = ids[start : start + PAGE]
            records = await self._inner.get(every, part, vectors=False)
            texts = {record.id: record.text for record in records if record.text is not None}
            await self._do(lambda part=part, texts=texts: self._words.put(scope.collection, part, texts))  # type: ignore[misc]

    async def _rebuild(self, scope: Scope) -> None:
        """The words of all rows that the store has now."""
        await self._do(lambda: self._words.clear(scope.collection))
        every = Scope(collection=scope.collection)
        cursor: Cursor | None = None
        while True:
            page = await self._inner.page(every, None, cursor, limit=PAGE, vectors=False)
            texts = {record.id: record.text for record in page.records if record.text is not None}
            if texts:
                await self._do(lambda texts=texts: self._words.put(scope.collection, list(texts), texts))  # type: ignore[misc]
            cursor = page.cursor
            if cursor is None:
                break
        await self._do(lambda: self._words.complete(scope.collection))

    async def _catch_up(self, scope: Scope) -> None:
        async with self._writes:
            if scope.collection not in self._words.behind:
                return
            ids = await self._do(lambda: self._words.marked(scope.collection))
            if ids is None:
                await self._rebuild(scope)
            else:
                await self._heal(scope, ids)
            self._words.behind.discard(scope.collection)

    # ------------------------------------------------------------------------------------- reads

    async def keyword(self, scope: Scope, query: KeywordQuery) -> Hits:
        """Ranked by the words, read from the store, filtered by what is read: what it no longer has is left out."""
        if not await self._kept(scope):
            raise Unsupported(
                f"{scope.collection.rpartition('@')[0]!r} was made with text=False and has no keyword index"
            )
        if scope.collection in self._words.behind:
            await self._catch_up(scope)
        plain = query.plan is None and scope.now is None
        wide = query.k if plain else max(4 * query.k, query.k + 64)
        among = query.ids
        while True:
            ranked = await self._do(
                lambda wide=wide, among=among: self._words.ranked(scope.collection, query.words, wide, among)  # type: ignore[misc]
            )
            hits = await self._hits(scope, query, ranked)
            if len(hits) >= query.k or len(ranked) < wide:
                return hits
            if query.plan is not None and among is None and wide >= WIDEST:
                among = await self._matching(scope, query.plan)
            wide *= 4

    async def _hits(self, scope: Scope, query: KeywordQuery, ranked: list[tuple[str, float]]) -> Hits:
        hits = Hits(coverage="exact", path="FTS5 beside the store, BM25")
        if not ranked:
            await self._inner.count(scope, None)  # for NotFound: a dropped collection does not answer
            return hits
        ids = [id for id, _ in ranked]  # noqa: A001
        found = {record.id: record for record in await self._inner.get(scope, ids, vectors=query.vectors_back)}
        for id, score in ranked:  # noqa: A001
            record = found.get(id)
            if record is not None and (query.plan is None or query.plan.where.matches(record.metadata)):
                hits.append(make_hit(id, score, record.text, dict(record.metadata), record.vector))  # type: ignore[arg-type]
        return hits

    async def get(self, scope: Scope, ids: Sequence[str], *, vectors: bool) -> list[Record]:
        return await self._inner.get(scope, ids, vectors=vectors)

    async def query(self, scope: Scope, query: Query) -> list[Hits]:
        return await self._inner.query(scope, query)

    async def count(self, scope: Scope, plan: Plan | None) -> int:
        return await self._inner.count(scope, plan)

    async def page(self, scope: Scope, plan: Plan | None, cursor: Cursor | None, *, limit: int, vectors: bool) -> Page:
        return await self._inner.page(scope, plan, cursor, limit=limit, vectors=vectors)

    async def stats(self, scope: Scope) -> Stats:
        return await self._inner.stats(scope)

    async def optimize(self, name: str) -> None:
        await self._inner.optimize(name)
        if self._texts.get(name):
            async with self._writes:
                await self._do(lambda: self._words.optimize(name))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._inner.close()
        if os.getpid() != self._pid:
            return
        self._words.close()
        if self._lock is not None:
            self._lock.release()
