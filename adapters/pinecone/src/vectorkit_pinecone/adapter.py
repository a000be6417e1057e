"""Pinecone as an Adapter: the verbs, over either kind of index. Names and lifecycle are in `catalogue.py`.

Pinecone takes a write before reads see it. Its answers say where in its log they are, so that a write can wait to be seen.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np

from vectorkit.adapter import (
    Adapter,
    Capability,
    Change,
    KeywordQuery,
    Mode,
    Plan,
    Query,
    Scope,
    Selector,
    Target,
    WriteReport,
)
from vectorkit.errors import (
    Ambiguous,
    Corrupt,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    PartialFailure,
    RateLimited,
    Unavailable,
    Unsupported,
    VectorkitError,
)
from vectorkit.filters import Node
from vectorkit.local.exact import prepare, score
from vectorkit.ranking import tie_floor
from vectorkit.requests import cut
from vectorkit.runtime import Runtime, heavy
from vectorkit.sequence import Rising
from vectorkit.types import HNSW, IVF, Batch, CollectionSpec, Cursor, FloatArray, Hits, Page, Record, Stats, make_hit
from vectorkit_pinecone import convert, filters
from vectorkit_pinecone.adopt import Source
from vectorkit_pinecone.catalogue import Catalogue, Opened
from vectorkit_pinecone.client import Client, unreachable
from vectorkit_pinecone.convert import BODY, MOST_ROWS, SHOWN, WHOLE, Row
from vectorkit_pinecone.filters import EVERY, Where, alive, among, both
from vectorkit_pinecone.options import PineconeOptions
from vectorkit_pinecone.wire import Found, Patch, Written

T = TypeVar("T")
_Search: TypeAlias = Callable[[int, Sequence[str], bool, Where | None], Awaitable[Found]]
"""So many rows, with these fields, with vectors or not, that match."""
MOST_K = 10_000
COUNTED = 10_000  # ids in one request of a count
CATCH_UP = 60.0  # seconds that an update waits for this handle's own write before it
RECENT = 60.0  # seconds after a write in which the index's statistics may not have it yet
TIED = 9  # rows asked for beyond k by a keyword query, to see those that tie with the last
TOGETHER = 16  # queries under way at once
DELETED = ("vk_id", "vk_expires", "vk_until")

CAPABILITY = Capability(
    store="pinecone",
    durable=True,
    exact=False,
    keyword=True,
    keyword_statistics="shared",
    insert="none",
    update="read_modify_write",
    consistency="eventual",
    expiry=True,
    read_only=True,
    deadline=True,
    ef_search=False,
    indexes=frozenset(),
    counts="read",
    adopt=True,
    pushdown=frozenset({"$eq", "$gt", "$gte", "$lt", "$lte", "$in", "$startswith", "$exists"}),
    max_k=MOST_K,
    max_dimension=20_000,
    max_rows_per_write=MOST_ROWS,
)


@dataclass(slots=True)
class _Mark:
    """What a write is known by when reads see it: its number in the namespace's log, by which searches tell; and for fetches, a row
    with its sequence number, or what no row matches any more. first: that row's number when it was first looked at."""

    lsn: int | None
    key: str = ""
    sequence: int | None = None
    gone: Where | None = None
    first: tuple[Any, ...] = ()


class PineconeAdapter:
    """The collections of one prefix in a project of Pinecone."""

    def __init__(self, target: Target, options: PineconeOptions, runtime: Runtime) -> None:
        where = {"cloud": "aws", "region": "us-east-1"} | {
            name: value for name, value in target.parameters.items() if name != "host"
        }
        self._client = Client(target, options, runtime)
        self._catalogue = Catalogue(self._client, target.path, where, options, runtime)
        self._options = options
        self._runtime = runtime
        self._read_only = target.read_only
        self._sequence = Rising()
        self._unseen: dict[str, _Mark] = {}
        self._touched: dict[str, float] = {}
        self.capability = CAPABILITY
        if options.api == "vectors":
            self.capability = replace(CAPABILITY, keyword=False, keyword_statistics=None)

    @property
    def native(self) -> Any:
        """Pinecone's official client of this colour."""
        return self._client.native

    def plan(self, spec: CollectionSpec, where: Node) -> Plan:
        return filters.plan(spec, where)

    def _writable(self) -> None:
        if self._read_only:
            raise Unsupported(f"{self._client.shown} was opened with read_only=True; connect without it to write")

    async def _on(self, scope: Scope, act: Callable[[Opened], Awaitable[T]], otherwise: T | None = None) -> T:
        """Act on a collection. A namespace that is not there is one without rows: `otherwise`."""
        opened = await self._catalogue.open(scope.collection)
        try:
            return await act(opened)
        except (NotFound, Unavailable) as error:
            if not isinstance(error, NotFound) and not unreachable(error):
                raise
            if await self._catalogue.gone(opened):
                raise NotFound(f"{self._client.shown}: the collection {opened.spec.name!r} was dropped") from error
            if isinstance(error, NotFound) and otherwise is not None:
                return otherwise
            raise

    # ------------------------------------------------------------------------------------- collections

    async def create(self, spec: CollectionSpec) -> CollectionSpec:
        self._writable()
        self._check(spec)
        return await self._catalogue.create(spec)

    def _check(self, spec: CollectionSpec) -> None:
        if isinstance(spec.index, HNSW | IVF) and spec.index.quantization is not None:
            raise Unsupported(
                f"pinecone decides itself how vectors are kept, asked for {spec.index.quantization}; leave quantization=None"
            )

    async def adopt(self, name: str, spec: CollectionSpec, rows: Iterable[Record] | None) -> CollectionSpec:
        """Copy `index?namespace=…&text=…` into a collection that is published when it is whole."""
        self._writable()
        self._check(spec)
        if rows is not None:
            raise InvalidArgument("a Pinecone index has its texts and metadata with it; leave rows= out")
        source = Source.parse(name, self._client.shown)
        source.check(await self._client.control("describe", source.index), spec, private=self._options.private)
        made = await self._catalogue.create(spec, publish=False)
        opened = await self._catalogue.open(made.physical)
        try:
            await self._copy(source, opened)
            await self._catalogue.publish(opened)
        except BaseException:
            await self._runtime.finish(self._catalogue.discard(made))
            raise
        return made

    async def _copy(self, source: Source, opened: Opened) -> None:
        ids = await source.ids(self._client)
        size = convert.per_answer(opened.spec.dimension, vectors=True)
        for start in range(0, len(ids), size):
            rows = await _halved(ids[start : start + size], lambda part: source.rows(self._client, part))
            await self._put(opened, source.batch(opened.spec, rows, start), wait=None)
        source.finish()

    async def describe(self, name: str) -> CollectionSpec:
        return await self._catalogue.describe(name)

    async def names(self) -> list[str]:
        return await self._catalogue.names()

    async def drop(self, name: str) -> None:
        self._writable()
        await self._catalogue.drop(name)

    # ------------------------------------------------------------------------------------- writes

    async def write(self, scope: Scope, batch: Batch, mode: Mode) -> WriteReport:
        self._writable()
        return await self._on(scope, lambda opened: self._put(opened, batch, wait=self._wait(scope)))

    def _wait(self, scope: Scope) -> float | None:
        """How long a write may take to be seen: the last part of a call waits for all of it."""
        if scope.more:
            return None
        return self._options.wait if scope.wait is None else scope.wait

    async def _put(self, opened: Opened, batch: Batch, *, wait: float | None) -> WriteReport:
        first = self._sequence.next(len(batch))
        rows = await heavy(self._runtime, len(batch), lambda: convert.rows(opened.spec, batch, first))
        done = 0
        written = Written(None)
        for stop in cut([row.size for row in rows], BODY):
            try:
                written = await opened.wire.upsert(opened.rows, rows[done:stop])
            except VectorkitError as error:
                if not done:
                    raise
                raise PartialFailure(
                    f"{done} rows were written, {len(rows) - done} were not: {error}",
                    written=done,
                    failed=batch.ids[done:],
                ) from error
            done = stop
        await self._settle(opened, _Mark(written.lsn, rows[-1].key, first + len(rows) - 1), wait)
        return WriteReport(written=len(batch))

    async def _settle(self, opened: Opened, mark: _Mark, wait: float | None) -> None:
        """Wait until searches and fetches see a write, which they do at different times. Unseen so far, it is remembered."""
        physical = opened.spec.physical
        self._unseen[physical] = mark
        self._touched[physical] = time.monotonic()
        if wait and not await self._seen(opened, mark, wait, searches=True):
            raise DeadlineExceeded(
                f"{self._client.shown}: the write was taken, and reads had not seen it after {wait:g} s", landed=True
            )

    async def _seen(self, opened: Opened, mark: _Mark, wait: float, *, searches: bool) -> bool:
        """Whether reads see a write within so many seconds. Of a write that was taken, what fails meanwhile has not seen it."""
        passing = (Unavailable, RateLimited, DeadlineExceeded) if searches else ()
        end = time.monotonic() + wait
        pause = 0.02
        searched = not searches
        fetched = False
        while True:
            left = end - time.monotonic()
            with suppress(*passing):
                async with self._runtime.deadline(max(left, 0.05)):
                    searched = searched or await self._searched(opened, mark)
                    fetched = fetched or await self._fetched(opened, mark)
            if searched and fetched:
                if self._unseen.get(opened.spec.physical) is mark:
                    del self._unseen[opened.spec.physical]
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            await self._runtime.sleep(min(pause, left))
            pause = min(1.5 * pause, 0.5)

    async def _caught_up(self, opened: Opened) -> None:
        """Wait for this handle's last write: what is about to be read is written back, and must not be older."""
        mark = self._unseen.get(opened.spec.physical)
        wait = self._options.wait or CATCH_UP
        if mark is not None and not await self._seen(opened, mark, wait, searches=False):
            raise DeadlineExceeded(
                f"{self._client.shown}: what this handle wrote before is not to be seen after {wait:g} s; nothing was updated"
            )

    def _before(self, where: Where) -> Where:
        """Rows that match and were written before now."""
        found = both(where, {"vk_seq": {"$lte": self._sequence.next(1)}})
        assert found is not None
        return found

    async def _searched(self, opened: Opened, mark: _Mark) -> bool:
        if mark.lsn is None and mark.gone is None:
            return True
        first = np.zeros(opened.spec.dimension, np.float32)
        first[0] = 1.0
        where = mark.gone if mark.lsn is None else None
        try:
            found = await opened.wire.search(opened.rows, first, 1, where, (), vectors=False)
        except NotFound:  # of a namespace: what was deleted is gone, what was written is not there yet
            return mark.gone is not None
        if mark.lsn is None:
            return not found.rows
        return found.lsn is None or found.lsn >= mark.lsn

    async def _fetched(self, opened: Opened, mark: _Mark) -> bool:
        """Whether fetches see the write: the row has its number or a later one, or has changed since it was first looked at, by
        another who was later and whose clock need not be; or nothing is left of what was deleted."""
        try:
            if mark.key:
                rows = await opened.wire.fetch(opened.rows, [mark.key], ("vk_seq",), vectors=False)
            elif mark.gone is not None:
                rows, _ = await opened.wire.page(opened.rows, mark.gone, 1, None, ("vk_seq",), vectors=False)
            else:
                return True
        except NotFound:
            rows = []
        if mark.sequence is None:
            return not rows
        seen = rows[0].fields.get("vk_seq") if rows else None
        if not mark.first:
            mark.first = (seen,)
        return seen != mark.first[0] or (isinstance(seen, int | float) and seen >= mark.sequence)

    async def update(self, scope: Scope, ids: Sequence[str], change: Change) -> int:
        self._writable()

        async def act(opened: Opened) -> int:
            await self._caught_up(opened)
            patches: list[Patch] = []
            for row in await self._fetch(opened, ids, None):
                metadata = self._metadata(row)
                if self._lives(row, scope.now) and (change.where is None or change.where.matches(metadata)):
                    given, gone = convert.changed(
                        opened.spec, row.fields, change.apply(metadata), self._sequence.next(1)
                    )
                    patches.append(Patch(row, given, gone))
            return await self._patch(opened, patches, scope)

        return await self._on(scope, act, 0)

    async def _patch(self, opened: Opened, patches: Sequence[Patch], scope: Scope) -> int:
        if not patches:
            return 0
        done = 0
        written = Written(None)
        for stop in cut([max(BODY / MOST_ROWS, opened.wire.size(patch)) for patch in patches], BODY):
            try:
                written = await opened.wire.patch(opened.rows, patches[done:stop])
            except VectorkitError as error:
                if not done:
                    raise
                raise PartialFailure(
                    f"{done} rows were updated, {len(patches) - done} were not: {error}",
                    written=done,
                    failed=[self._id(patch.row) for patch in patches[done:]],
                ) from error
            done = stop
        last = patches[-1]
        if not scope.more:  # the parts of one call change other rows, and need not see each other
            await self._settle(opened, _Mark(written.lsn, last.row.key, last.given["vk_seq"]), self._wait(scope))
        return done

    async def delete(self, scope: Scope, selector: Selector) -> int:
        self._writable()

        async def act(opened: Opened) -> int:
            if selector.ids is not None:
                return await self._delete_ids(opened, scope, selector.ids, selector.plan)
            if selector.plan is None:
                return await self._clear(opened, scope)
            where = both(selector.plan.native, alive(scope.now))
            assert where is not None
            return await self._delete_where(opened, scope, where)

        return await self._on(scope, act, 0)

    async def _delete_ids(self, opened: Opened, scope: Scope, ids: Sequence[str], plan: Plan | None) -> int:
        """All that are named are deleted, also those that were written a moment ago and are not seen yet; those seen are counted."""
        fields = DELETED if plan is None else (*DELETED, "vk_meta")
        seen = [
            row
            for row in await self._fetch(opened, ids, fields)
            if self._lives(row, scope.now) and (plan is None or plan.where.matches(self._metadata(row)))
        ]
        keys = [convert.row_key(id) for id in ids] if plan is None else [row.key for row in seen]  # noqa: A001
        if not keys:
            return 0
        named = list(ids) if plan is None else [self._id(row) for row in seen]
        gone = self._before(among(named[-MOST_ROWS:]))
        written = Written(None)
        for start in range(0, len(keys), MOST_ROWS):
            try:
                written = await opened.wire.delete(opened.rows, keys[start : start + MOST_ROWS])
            except VectorkitError as error:
                if not start:
                    raise
                done = len({row.key for row in seen} & set(keys[:start]))
                raise PartialFailure(
                    f"{done} rows were deleted, {len(keys) - start} ids were not asked for: {error}",
                    written=done,
                    failed=named[start:],
                ) from error
        await self._settle(opened, _Mark(written.lsn, gone=gone), self._wait(scope))
        return len(seen)

    async def _clear(self, opened: Opened, scope: Scope) -> int:
        if (lives := alive(scope.now)) is None:
            count = await self._count(opened, scope, None)
        else:  # those that have expired do not count
            count = await self._delete_where(opened, replace(scope, more=True), lives)
        gone = self._before(EVERY)
        written = await opened.wire.clear(opened.rows)
        await self._settle(opened, _Mark(written.lsn, gone=gone), self._wait(scope))
        return count

    async def _delete_where(self, opened: Opened, scope: Scope, where: Where) -> int:
        """One request where Pinecone says how many rows matched; a classic index does not, and they are counted first."""
        counted = None if opened.wire.words else await self._read_ids(opened, scope, where)
        gone = self._before(where)
        written = await opened.wire.delete_where(opened.rows, where)
        await self._settle(opened, _Mark(written.lsn, gone=gone), self._wait(scope))
        count = written.matched if counted is None else counted
        if count is None:
            raise Ambiguous(f"{self._client.shown} took the delete, and could not say in time how many rows match it")
        return count

    # ------------------------------------------------------------------------------------- reads

    async def _fetch(
        self, opened: Opened, ids: Sequence[str], fields: Sequence[str] | None, *, vectors: bool = False
    ) -> list[Row]:
        """Rows by id. fields: None for all but the vector."""
        wanted = {convert.row_key(id): id for id in ids}  # noqa: A001
        names = self._every_field(opened.spec) if fields is None else fields
        found = await self._whole(opened, list(wanted), names, vectors=vectors)
        return [row for row in found if row.fields.get("vk_id") == wanted.get(row.key)]

    async def _whole(self, opened: Opened, keys: Sequence[str], fields: Sequence[str], *, vectors: bool) -> list[Row]:
        """Rows by their ids there, as many a request as an answer should hold; half as many where one is refused as too large."""
        size = MOST_ROWS if fields == DELETED and opened.wire.words else self._at_once(opened, vectors=vectors)
        rows: list[Row] = []
        for start in range(0, len(keys), size):
            rows += await _halved(
                keys[start : start + size],
                lambda part: opened.wire.fetch(opened.rows, part, fields, vectors=vectors),
            )
        return rows

    def _at_once(self, opened: Opened, *, vectors: bool) -> int:
        """Rows to ask for in one request. A classic index sends the vectors with every fetch."""
        return convert.per_answer(opened.spec.dimension, vectors=vectors or not opened.wire.words)

    async def _page(
        self, opened: Opened, where: Where, limit: int, token: str | None, fields: Sequence[str], *, vectors: bool
    ) -> tuple[list[Row], str | None]:
        """A page, with fewer rows where so many are refused as too large."""
        while True:
            try:
                return await opened.wire.page(opened.rows, where, limit, token, fields, vectors=vectors)
            except Unsupported:
                if limit == 1:
                    raise
                limit = max(1, limit // 2)

    def _every_field(self, spec: CollectionSpec) -> list[str]:
        declared = [f"{filters.FIELD}{n}" for n in range(len(spec.fields))]
        return [*WHOLE, *declared, *(f"{name}p" for name in declared)]

    def _lives(self, row: Row, now: int | None) -> bool:
        if now is None:
            return True
        try:
            return convert.expires_of(row.fields) > now
        except ValueError as error:
            raise self._damaged(row, error) from error

    def _metadata(self, row: Row) -> dict[str, Any]:
        try:
            return convert.metadata_of(row.fields)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damaged(row, error) from error

    def _id(self, row: Row) -> str:
        try:
            return convert.id_of(row.fields)
        except ValueError as error:
            raise self._damaged(row, error) from error

    def _record(self, row: Row, *, vectors: bool) -> Record:
        try:
            return convert.record_of(row, vectors=vectors)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise self._damaged(row, error) from error

    def _damaged(self, row: Row, error: Exception) -> Corrupt:
        if "vk_id" not in row.fields:
            return Corrupt(
                f"{self._client.shown}: the record {row.key!r} in the namespace of our rows is not of vectorkit's; delete it in Pinecone"
            )
        return Corrupt(
            f"{self._client.shown}: what is stored of the row {row.fields['vk_id']!r} is damaged ({error}); write that row again"
        )

    async def get(self, scope: Scope, ids: Sequence[str], *, vectors: bool) -> list[Record]:
        async def act(opened: Opened) -> list[Record]:
            rows = await self._fetch(opened, ids, WHOLE, vectors=vectors)
            return [self._record(row, vectors=vectors) for row in rows if self._lives(row, scope.now)]

        return await self._on(scope, act, [])

    async def count(self, scope: Scope, plan: Plan | None) -> int:
        return await self._on(scope, lambda opened: self._count(opened, scope, plan), 0)

    async def _count(self, opened: Opened, scope: Scope, plan: Plan | None) -> int:
        where = both(None if plan is None else plan.native, alive(scope.now))
        if where is not None:
            return await self._read_ids(opened, scope, where)
        if time.monotonic() - self._touched.get(opened.spec.physical, -RECENT) < RECENT:
            with suppress(Unsupported):  # of more rows than may be read
                return await self._read_ids(opened, scope, EVERY)
        return await self._size(opened)

    async def _size(self, opened: Opened) -> int:
        """All rows there are, those that have expired too, as the index's statistics have them."""
        told = await self._client.data(opened.host, "describe_index_stats")
        found = told.namespaces.get(opened.rows.namespace)
        return 0 if found is None else int(found.vector_count)

    async def _read_ids(self, opened: Opened, scope: Scope, where: Where) -> int:
        """How many rows match, by reading their ids: Pinecone counts none by a filter."""
        count = 0
        token: str | None = None
        while True:
            limit = COUNTED if opened.wire.words else self._at_once(opened, vectors=False)
            rows, token = await self._page(opened, where, limit, token, ("vk_id",), vectors=False)
            count += len(rows)
            if scope.most is not None and count > scope.most:
                raise Unsupported(
                    f"pinecone counts no rows by a filter (expiry is one), and more than {scope.most} ids would be read for it; "
                    "narrow the filter, or connect with a larger residual_limit"
                )
            if token is None:
                return count

    async def page(self, scope: Scope, plan: Plan | None, cursor: Cursor | None, *, limit: int, vectors: bool) -> Page:
        where = both(None if plan is None else plan.native, alive(scope.now)) or EVERY
        token = None if cursor is None else cursor.position

        async def act(opened: Opened) -> Page:
            size = min(limit, self._at_once(opened, vectors=vectors))
            rows, following = await self._page(opened, where, size, token, WHOLE, vectors=vectors)
            records = [self._record(row, vectors=vectors) for row in rows]
            return Page(records, None if following is None else Cursor(None, following))

        return await self._on(scope, act, Page([], None))

    async def stats(self, scope: Scope) -> Stats:
        """Where more rows than may be read can expire, of the index's statistics: those that have expired count in them."""
        try:
            rows = await self.count(scope, None)
        except Unsupported:
            rows = await self._on(scope, self._size, 0)
        return Stats(rows=rows, index="managed", indexed=rows)

    async def optimize(self, name: str) -> None:
        """Nothing to do: Pinecone tends its indexes itself. NotFound."""
        self._writable()
        await self._catalogue.open(name)

    async def close(self) -> None:
        await self._client.close()

    # ------------------------------------------------------------------------------------- queries

    async def query(self, scope: Scope, query: Query) -> list[Hits]:
        where = both(None if query.plan is None else query.plan.native, alive(scope.now))

        async def act(opened: Opened) -> list[Hits]:
            found: list[Hits] = []
            sent = convert.queries(opened.spec.metric, query.vectors)
            for start in range(0, len(sent), TOGETHER):
                found += await self._runtime.gather(
                    *(
                        self._nearest(opened, query, where, query.vectors[at], sent[at])
                        for at in range(start, min(start + TOGETHER, len(sent)))
                    )
                )
            return found

        return await self._on(scope, act, [Hits(coverage="exact", path="no rows") for _ in query.vectors])

    async def _nearest(
        self, opened: Opened, query: Query, where: Where | None, vector: FloatArray, sent: FloatArray
    ) -> Hits:
        """The nearest rows, scored again from their vectors: Pinecone's scores are approximate (a vector's cosine with itself
        was seen as 1.001), of float32, and squared distances under euclidean."""
        rows: list[Row] = []
        full = short = False
        for part in self._parts(query.ids, where):

            async def search(k: int, fields: Sequence[str], vectors: bool, where: Where | None) -> Found:
                return await opened.wire.search(opened.rows, sent, k, where, fields, vectors=vectors)

            found, number = await self._top(opened, query.k, part, search, vectors=True)
            full = full or number >= query.k
            short = short or len(found) < number
            rows += [row for row, _ in found]
        hits = Hits(
            coverage="short" if short else "complete" if full else "exact",
            path="Pinecone's index" if full else "Pinecone's index, every row that matches",
        )
        if not rows:
            return hits
        metric = opened.spec.metric
        try:
            stored = convert.vectors_of(rows)
            with np.errstate(all="ignore"):
                asked = prepare(vector.reshape(1, -1), metric)[0]
                scores = score(prepare(stored, metric), asked, metric).tolist()
        except (ValueError, TypeError) as error:
            raise self._damaged(rows[0], error) from error
        for row, measured, written in zip(rows, scores, stored, strict=True):
            self._add(hits, row, measured, written if query.vectors_back else None)
        return hits

    def _parts(self, ids: Sequence[str] | None, where: Where | None) -> list[Where | None]:
        """The filter, or one for each thousand of the ids that are searched among."""
        if ids is None:
            return [where]
        return [both(where, among(list(ids[at : at + MOST_ROWS]))) for at in range(0, len(ids), MOST_ROWS)]

    async def _top(
        self, opened: Opened, k: int, where: Where | None, search: _Search, *, vectors: bool
    ) -> tuple[list[tuple[Row, float]], int]:
        """The k best with their fields and scores, and how many there were: in one request where an answer holds them, else their
        ids, and then they."""
        if k <= convert.per_answer(opened.spec.dimension, vectors=vectors):
            try:
                best = _scored(await search(k, SHOWN, vectors, where))
            except Unsupported:  # an answer over its limit is refused too
                if k == 1:
                    raise
            else:
                return best, len(best)
        scores = {
            row.key: (row, measured)
            for row, measured in _scored(await search(k, ("vk_id",) * opened.wire.words, False, where))
        }
        return await self._filled(opened, scores, where, search, vectors=vectors), len(scores)

    async def _filled(
        self,
        opened: Opened,
        best: dict[str, tuple[Row, float]],
        where: Where | None,
        search: _Search,
        *,
        vectors: bool,
    ) -> list[tuple[Row, float]]:
        """The rows of these ids with their fields: searched for among their ids, since a fetch may see an older state; a classic
        index, which cannot tell an id without all the rest, is asked by fetch."""
        if not opened.wire.words:
            rows = await self._whole(opened, list(best), SHOWN, vectors=vectors)
            return [(row, best[row.key][1]) for row in rows]
        size = convert.per_answer(opened.spec.dimension, vectors=vectors)
        ids = [self._id(row) for row, _ in best.values()]

        async def again(part: Sequence[str]) -> list[Row]:
            return (await search(len(part), SHOWN, vectors, both(where, among(list(part))))).rows

        found: list[Row] = []
        for start in range(0, len(ids), size):
            found += await _halved(ids[start : start + size], again)
        return [(row, best[row.key][1]) for row in found if row.key in best]

    async def _all_tied(
        self, opened: Opened, k: int, where: Where | None, search: _Search, *, vectors: bool
    ) -> list[tuple[Row, float]]:
        """The k best. Of those that tie for the last places the first by id, as far as Pinecone's order of ids is ours: their ids
        and scores are read, and the rows of k of them."""
        limit = min(k + TIED, MOST_K)
        found, _ = await self._top(opened, limit, where, search, vectors=vectors)
        tied = _open_ended([measured for _, measured in found], k, limit)
        if not tied:
            return found
        best: dict[str, tuple[Row, float]] = {}
        while tied and limit < MOST_K:
            limit = min(16 * limit, MOST_K)
            best = {
                row.key: (row, measured) for row, measured in _scored(await search(limit, ("vk_id",), False, where))
            }
            tied = _open_ended([measured for _, measured in best.values()], k, limit)
        first = sorted(best.items(), key=lambda item: (-item[1][1], item[0]))[:k]
        return await self._filled(opened, dict(first), where, search, vectors=vectors)

    def _vector(self, row: Row) -> FloatArray:
        try:
            return convert.vector_of(row.fields, row.vector)
        except (ValueError, TypeError) as error:
            raise self._damaged(row, error) from error

    def _add(self, hits: Hits, row: Row, measured: float, vector: FloatArray | None) -> None:
        try:
            hits.append(
                make_hit(convert.id_of(row.fields), measured, convert.text_of(row.fields), self._metadata(row), vector)
            )
        except ValueError as error:
            raise self._damaged(row, error) from error

    async def keyword(self, scope: Scope, query: KeywordQuery) -> Hits:
        where = both(None if query.plan is None else query.plan.native, alive(scope.now))
        words = convert.clauses(query.text)

        async def act(opened: Opened) -> Hits:
            hits = Hits(coverage="complete", path="full-text index, BM25")

            async def search(k: int, fields: Sequence[str], vectors: bool, where: Where | None) -> Found:
                return await opened.wire.keyword(opened.rows, words, k, where, fields, vectors=vectors)

            for part in self._parts(query.ids, where):
                for row, measured in await self._all_tied(opened, query.k, part, search, vectors=query.vectors_back):
                    self._add(hits, row, measured, self._vector(row) if query.vectors_back else None)
            return hits

        return await self._on(scope, act, Hits(coverage="exact", path="no rows"))


async def _halved(keys: Sequence[str], ask: Callable[[Sequence[str]], Awaitable[list[Row]]]) -> list[Row]:
    """Rows by their ids; half as many in a request where an answer is refused as too large."""
    parts = [list(keys)]
    rows: list[Row] = []
    while parts:
        part = parts.pop(0)
        try:
            rows += await ask(part)
        except Unsupported:
            if len(part) == 1:
                raise
            parts[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
    return rows


def _open_ended(scores: Sequence[float], k: int, limit: int) -> bool:
    """Whether more rows than were asked for may tie with the k-th best."""
    ranked = sorted(scores, reverse=True)
    return len(ranked) == limit > k and ranked[-1] >= tie_floor(ranked[k - 1])


def _scored(found: Found) -> list[tuple[Row, float]]:
    return [(row, measured or 0.0) for row, measured in zip(found.rows, found.scores, strict=True)]


async def open_pinecone(target: Target, runtime: Runtime) -> Adapter:
    """Open a project by its key. Nothing is sent before the first verb."""
    options = target.options if target.options is not None else PineconeOptions()
    return PineconeAdapter(target, options, runtime)
