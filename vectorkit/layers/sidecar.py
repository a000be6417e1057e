"""Keyword search for a store that has none: an adapter around its adapter, with an FTS5 index in an SQLite file of its own.

The store stays the truth. Ids are marked before the store is written and unmarked with their words, so that whatever ends
between the two is read again from the store before the next keyword answer. Words belong to the store's own identity of a
collection, not to its name: a file that is used with another database, or a server that was wiped, never answers for the other.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from vectorkit.adapter import Adapter, Change, KeywordQuery, Mode, Plan, Query, Scope, Selector, WriteReport
from vectorkit.errors import Closed, Corrupt, InvalidArgument, NotFound, Unavailable, Unsupported
from vectorkit.filters import Node
from vectorkit.layers.wordfile import Book, WordFile
from vectorkit.local.lock import DirectoryLock
from vectorkit.runtime import Runtime
from vectorkit.types import Batch, CollectionSpec, Cursor, Hits, Page, Record, Stats, make_hit
from vectorkit.words import split_words

T = TypeVar("T")
PAGE = 1_000
WIDEST = (
    4_000  # candidates that are read to apply a filter; after that the matching rows are listed, and searched among
)
LOCK_TIMEOUT = 1.0


class Inner(Adapter, Protocol):
    """An adapter that a side-car can be put around."""

    async def identity(self, physical: str) -> str:
        """What the store itself tells this collection by from all others, in any database, before and after: its UUID.
        NotFound. Asked once a handle, and again when the collection is described anew."""


class Sidecar:
    """`inner` with keyword search. Writes of a handle go one after another, so that words follow in the store's order.

    What another process writes to the store is not seen: its rows have no words here, and rows that it deleted are left out. A
    row that it replaced is read again when it is met: its text is not the one that the words were made from.
    """

    def __init__(self, inner: Inner, words: WordFile, runtime: Runtime, lock: DirectoryLock | None, place: str) -> None:
        self._inner = inner
        self._words = words
        self._runtime = runtime
        self._lock = lock
        self._place = place
        self._writes = runtime.lock()
        self._texts: dict[str, bool] = {}
        self._books: dict[str, Book] = {}
        self._pid = os.getpid()
        self._closed = False
        self.capability = replace(inner.capability, keyword=True, keyword_statistics="tenant", read_only=False)

    @classmethod
    async def open(
        cls, inner: Inner, path: Path, runtime: Runtime, *, shown: str, own_lock: bool, place: str | None = None
    ) -> "Sidecar":
        """Open or make the file. own_lock: no lock of the store covers it, so one is taken beside it. place: what tells the
        database from others that use the same file (default: `shown`); with one and the same, they forget each other's words,
        and make them again. Locked, Corrupt, InvalidArgument."""
        _check_path(path, shown)
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
        made = cls(inner, index, runtime, lock, shown if place is None else place)
        try:
            names = set(await inner.names())
            await made._forget([book for book in made._here() if book.name not in names])
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
        made = await self._known(await self._inner.create(spec))
        if made.text:
            await self._open_book(made.physical, whole=True)
        return made

    async def adopt(self, name: str, spec: CollectionSpec, rows: Iterable[Record] | None) -> CollectionSpec:
        return await self._known(await self._inner.adopt(name, spec, rows))

    async def describe(self, name: str) -> CollectionSpec:
        return await self._known(await self._inner.describe(name))

    async def _known(self, spec: CollectionSpec) -> CollectionSpec:
        """A collection whose identity is asked before its words are next used; its forerunners are gone."""
        self._texts[spec.physical] = spec.text
        self._books.pop(spec.physical, None)
        await self._forget([book for book in self._here(spec.name) if book.generation < spec.generation])
        return spec

    async def _open_book(self, physical: str, *, whole: bool) -> Book:
        """The words of the collection that the store has now; one that the file has not seen is read before it answers."""
        identity = await self._inner.identity(physical)
        others = self._here(physical.rpartition("@")[0])
        await self._forget([book for book in others if book.physical == physical and book.identity != identity])
        book = await self._do(lambda: self._words.add(physical, identity, self._place, whole=whole))
        self._books[physical] = book
        return book

    def _here(self, name: str | None = None) -> list[Book]:
        """The words of this database, of all collections or of one name."""
        return [book for book in self._words.books if book.place == self._place and name in {None, book.name}]

    async def _is_here(self, book: Book) -> bool:
        """Whether words are of this database; those that were made under another `place` are if the store knows them."""
        if book.place == self._place:
            return True
        try:
            return await self._inner.identity(book.physical) == book.identity
        except NotFound:
            return False

    async def _forget(self, books: Iterable[Book]) -> None:
        for book in books:
            await self._do(lambda gone=book: self._words.remove(gone))  # type: ignore[misc]

    async def names(self) -> list[str]:
        return await self._inner.names()

    async def drop(self, name: str) -> None:
        async with self._writes:
            gone = [book for book in self._words.books if book.name == name and await self._is_here(book)]
            await self._inner.drop(name)
            for book in gone:
                self._texts.pop(book.physical, None)
                self._books.pop(book.physical, None)
            await self._forget(gone)

    async def _kept(self, scope: Scope) -> Book | None:
        """The words of the collection, if it has any; one that this handle never described is described now."""
        physical = scope.collection
        book = self._books.get(physical)
        if book is not None and self._words.has(book):
            return book
        texts = self._texts.get(physical)
        if texts is None or book is not None:
            spec = await self.describe(physical.rpartition("@")[0])
            if spec.physical != physical:
                raise NotFound(f"{self.capability.store}: the collection {spec.name!r} was dropped")
            texts = spec.text
        return await self._open_book(physical, whole=False) if texts else None

    # ------------------------------------------------------------------------------------- writes

    async def _marked(self, book: Book, ids: Sequence[str] | None, write: Callable[[], Awaitable[T]]) -> T:
        """Mark, then write to the store and its words; what fails leaves its marks, and the next keyword query looks at the store."""
        try:
            await self._do(lambda: self._words.mark(book, ids))
            return await write()
        except BaseException:
            self._words.behind.add(book.n)
            raise

    async def write(self, scope: Scope, batch: Batch, mode: Mode) -> WriteReport:
        book = await self._kept(scope)
        if book is None:
            return await self._inner.write(scope, batch, mode)

        async def both() -> WriteReport:
            report = await self._inner.write(scope, batch, mode)
            if report.skipped:
                await self._heal(book, batch.ids)
            else:
                pairs = zip(batch.ids, batch.texts or (), strict=False)
                texts = {id: text for id, text in pairs if text is not None}  # noqa: A001
                await self._do(lambda: self._words.put(book, batch.ids, texts))
            return report

        async with self._writes:
            return await self._marked(book, batch.ids, both)

    async def update(self, scope: Scope, ids: Sequence[str], change: Change) -> int:
        return await self._inner.update(scope, ids, change)

    async def delete(self, scope: Scope, selector: Selector) -> int:
        book = await self._kept(scope)
        if book is None:
            return await self._inner.delete(scope, selector)

        async def everything() -> int:
            gone = await self._inner.delete(scope, selector)
            await self._rebuild(book)
            return gone

        async with self._writes:
            if selector.ids is not None:
                return await self._delete_ids(book, scope, selector.ids, selector.plan)
            if selector.plan is None:
                return await self._marked(book, None, everything)
            gone = 0
            while ids := await self._matching(scope, selector.plan):
                deleted = await self._delete_ids(book, scope, ids, selector.plan)
                gone += deleted
                if not deleted:
                    break
            return gone

    async def _delete_ids(self, book: Book, scope: Scope, ids: Sequence[str], plan: Plan | None) -> int:
        async def both() -> int:
            gone = await self._inner.delete(scope, Selector(ids=ids, plan=plan))
            if gone == len(ids):
                await self._do(lambda: self._words.put(book, ids, {}))
            else:  # some stayed, or were not there
                await self._heal(book, ids)
            return gone

        return await self._marked(book, ids, both)

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

    async def _heal(self, book: Book, ids: Sequence[str]) -> None:
        """The words of these ids as the store has them now, expired rows too."""
        every = Scope(collection=book.physical)
        for start in range(0, len(ids), PAGE):
            part = ids[start : start + PAGE]
            records = await self._inner.get(every, part, vectors=False)
            texts = {record.id: record.text for record in records if record.text is not None}
            await self._do(lambda part=part, texts=texts: self._words.put(book, part, texts))  # type: ignore[misc]

    async def _rebuild(self, book: Book) -> None:
        """The words of all rows that the store has now."""
        await self._do(lambda: self._words.clear(book))
        every = Scope(collection=book.physical)
        cursor: Cursor | None = None
        while True:
            page = await self._inner.page(every, None, cursor, limit=PAGE, vectors=False)
            texts = {record.id: record.text for record in page.records if record.text is not None}
            if texts:
                await self._do(lambda texts=texts: self._words.put(book, list(texts), texts))  # type: ignore[misc]
            cursor = page.cursor
            if cursor is None:
                break
        await self._do(lambda: self._words.complete(book))

    async def _catch_up(self, book: Book) -> None:
        async with self._writes:
            if book.n not in self._words.behind:
                return
            ids = await self._do(lambda: self._words.marked(book))
            if ids is None:
                await self._rebuild(book)
            else:
                await self._heal(book, ids)
            self._words.behind.discard(book.n)

    # ------------------------------------------------------------------------------------- reads

    async def keyword(self, scope: Scope, query: KeywordQuery) -> Hits:
        """Ranked by the words, read from the store, filtered by what is read: what it no longer has is left out."""
        book = await self._kept(scope)
        if book is None:
            raise Unsupported(
                f"{scope.collection.rpartition('@')[0]!r} was made with text=False and has no keyword index"
            )
        if book.n in self._words.behind:
            await self._catch_up(book)
        hits, replaced = await self._ranked(book, scope, query)
        if not replaced:
            return hits
        unmarked: int = await self._do(lambda: self._words.mark(book, replaced))
        if unmarked:  # otherwise a write of this handle is at them
            self._words.behind.add(book.n)
            await self._catch_up(book)
            hits, _ = await self._ranked(book, scope, query)
        return hits

    async def _ranked(self, book: Book, scope: Scope, query: KeywordQuery) -> tuple[Hits, list[str]]:
        """The answer as far as the words are those of the store, and the ids where they are not."""
        plain = query.plan is None and scope.now is None
        wide = query.k if plain else max(4 * query.k, query.k + 64)
        among = query.ids
        while True:
            ranked = await self._do(
                lambda wide=wide, among=among: self._words.ranked(book, query.words, wide, among)  # type: ignore[misc]
            )
            hits, replaced = await self._hits(scope, query, ranked)
            if len(hits) >= query.k or len(ranked) < wide:
                return hits, replaced
            if query.plan is not None and among is None and wide >= WIDEST:
                among = await self._matching(scope, query.plan)
            wide *= 4

    async def _hits(
        self, scope: Scope, query: KeywordQuery, ranked: list[tuple[str, float, str]]
    ) -> tuple[Hits, list[str]]:
        hits = Hits(coverage="exact", path="FTS5 beside the store, BM25")
        replaced: list[str] = []
        if not ranked:
            await self._inner.count(scope, None)  # for NotFound: a dropped collection does not answer
            return hits, replaced
        ids = [id for id, _, _ in ranked]  # noqa: A001
        found = {record.id: record for record in await self._inner.get(scope, ids, vectors=query.vectors_back)}
        for id, score, text in ranked:  # noqa: A001
            record = found.get(id)
            if record is None:
                continue
            if record.text != text:
                replaced.append(id)
                if record.text is None or not _has_any(record.text, query.words):
                    continue
            if query.plan is None or query.plan.where.matches(record.metadata):
                hits.append(make_hit(id, score, record.text, dict(record.metadata), record.vector))  # type: ignore[arg-type]
        return hits, replaced

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
        book = await self._kept(Scope(collection=name))
        if book is not None:
            async with self._writes:
                await self._do(lambda: self._words.optimize(book))

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


def _has_any(text: str, words: Sequence[str]) -> bool:
    """Whether the text has any of these words, which are distinct."""
    return len(split_words(" ".join([text, *words]))) < len(split_words(text)) + len(words)


def _check_path(path: Path, shown: str) -> None:
    """InvalidArgument for what names no file; looks, and opens nothing."""
    try:
        if path.name in {"", ".."} or "\0" in str(path) or path.is_dir():
            raise InvalidArgument(f"{shown}: the keyword index needs the path of a file, got {str(path)!r}")
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{shown}: the path of the keyword index is not Unicode: {str(path)!r}") from error
    except OSError as error:
        raise Unavailable(f"{shown}: the path of the keyword index cannot be looked at: {error.strerror}") from error
