"""PostgreSQL with pgvector: a table a collection, typed columns for declared fields, one statement a query.

The planner chooses between the filter's index and the vector's; what comes back short of k is asked for again exactly.
"""

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import isfinite
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg

from vectorkit.adapter import (
    Backend,
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
from vectorkit.codec import decode, encode
from vectorkit.errors import AlreadyExists, InvalidArgument, InvalidRecord, NotFound, Unsupported, VectorkitError
from vectorkit.filters import Node
from vectorkit.runtime import Runtime, heavy
from vectorkit.types import (
    HNSW,
    IVF,
    Batch,
    CollectionSpec,
    Cursor,
    Flat,
    Hits,
    Page,
    Record,
    Stats,
    make_hit,
)
from vectorkit_pgvector import convert, filters, indexing, wide
from vectorkit_pgvector.adopt import source
from vectorkit_pgvector.catalogue import Catalogue, prepare
from vectorkit_pgvector.convert import Wire, bigint, text, texts
from vectorkit_pgvector.filters import Condition
from vectorkit_pgvector.options import PgvectorOptions
from vectorkit_pgvector.pool import PARAMETERS, Pool, lost, translated, undone
from vectorkit_pgvector.tables import Table, values_of

T = TypeVar("T")
_log = logging.getLogger("vectorkit.pgvector")
ATTEMPTS = 5
FEW = 8  # up to so many rows are one statement's parameters; more are copied
STALE = 30.0  # seconds for which it is remembered whether there is an index, which another process may make
WIDE_PAGE = 2_000  # rows read at a time where their scores are taken here
MOST_FIELDS = 1_500  # a table has at most 1,600 columns
MOST = 2**62  # rows that a LIMIT takes
CALIBRATED = 40  # pgvector's own width, until one has been measured

CAPABILITY = Capability(
    store="pgvector",
    durable=True,
    exact=True,
    keyword=True,
    keyword_statistics="tenant",
    insert="atomic",
    update="atomic",
    consistency="read_your_writes",
    expiry=True,
    read_only=True,
    deadline=True,
    ef_search=True,
    indexes=frozenset({"flat", "hnsw", "ivf"}),
    adopt=True,
    pushdown=frozenset(
        {"$eq", "$gt", "$gte", "$lt", "$lte", "$in", "$contains_any", "$contains_all", "$startswith", "$exists"}
    ),
    max_dimension=16_000,
)


@dataclass(slots=True)
class _Known:
    """What is remembered of a collection between calls."""

    table: Table
    indexed: bool
    width: int
    looked: float
    empty: bool = False
    """That it was just made by this handle, so that rows can be copied straight into it."""
    unindexed: int = 0
    """Rows there without an index: as counted when the collection was first met, and what was written since."""
    worth: int = 0
    """Rows above which an index is built."""


class PgvectorAdapter:
    """Collections in one schema of one database."""

    capability = CAPABILITY

    def __init__(
        self, pool: Pool, catalogue: Catalogue, runtime: Runtime, options: PgvectorOptions, *, read_only: bool
    ) -> None:
        self._pool = pool
        self._catalogue = catalogue
        self._runtime = runtime
        self._options = options
        self._read_only = read_only
        self._known: dict[str, _Known] = {}

    @property
    def native(self) -> Any:
        """psycopg's pool, of this store's colour."""
        return self._pool.native

    def plan(self, spec: CollectionSpec, where: Node) -> Plan:
        return filters.plan(spec, where)

    # ------------------------------------------------------------------------------------- connections

    async def _run(
        self, act: Callable[[Any], Awaitable[T]], *, again: bool = False, inserting: bool = False, own: bool = False
    ) -> T:
        """Act on a connection; `again`: once more on another one where the first was lost, which a read may be.

        What the server undid to end a deadlock is done again, whatever it is.
        """
        until = None if own else self._pool.deadline()
        for attempt in range(ATTEMPTS):
            try:
                async with self._pool.lease(until, own=own) as conn:
                    return await act(conn)
            except psycopg.Error as error:
                last = attempt == ATTEMPTS - 1
                if last or not (undone(error) or (again and lost(error) and not attempt)):
                    raise translated(error, self._pool.shown, inserting=inserting) from error
                await self._runtime.sleep(0.0 if lost(error) else random.uniform(0.001, 0.02) * 2**attempt)  # noqa: S311
        raise AssertionError("the last attempt returns or raises")

    @asynccontextmanager
    async def _transaction(self, conn: Any) -> AsyncIterator[None]:
        async with self._runtime.enter(conn.transaction()):
            yield

    async def _all(self, conn: Any, sql: str, values: Any) -> list[Any]:
        cursor = await self._runtime.call(conn.execute, sql, values, binary=True)
        found: list[Any] = await self._runtime.call(cursor.fetchall)
        return found

    async def _changed(self, conn: Any, sql: str, values: Any) -> int:
        cursor = await self._runtime.call(conn.execute, sql, values, binary=True)
        return int(cursor.rowcount)

    def _writable(self) -> None:
        if self._read_only:
            raise Unsupported(f"{self._pool.shown} was opened with read_only=True; connect without it to write")

    # ------------------------------------------------------------------------------------- collections

    async def create(self, spec: CollectionSpec) -> CollectionSpec:
        self._writable()
        _check(spec)

        async def act(conn: Any) -> CollectionSpec:
            async with self._transaction(conn):
                return await self._catalogue.create(conn, spec)

        made = await self._run(act)
        self._known[made.physical] = _Known(
            self._catalogue.table(made), False, CALIBRATED, monotonic(), empty=True, worth=indexing.threshold(made)
        )
        return made

    async def adopt(self, name: str, spec: CollectionSpec, rows: Iterable[Record] | None) -> CollectionSpec:
        """Copy a plain pgvector table into a new collection, in one transaction; see `adopt.py` for the name."""
        self._writable()
        _check(spec)
        if rows is not None:
            raise InvalidArgument("a table's rows have no order; adopt takes rows= only where vectors come from a file")

        async def act(conn: Any) -> CollectionSpec:
            call = self._runtime
            async with self._transaction(conn):
                found = await source(conn, call, name, spec, self._catalogue.place.extension)
                made = await self._catalogue.create(conn, spec)
                table = self._catalogue.table(made)
                await found.open(conn, call)
                count = 0
                while (batch := await found.batch(conn, call, made, count)) is not None:
                    convert.check_limits(made, batch, half=table.half)
                    await self._copy(conn, table.copy, convert.rows_of(made, batch, ""))
                    count += len(batch)
            self._known[made.physical] = _Known(
                table, False, CALIBRATED, monotonic(), unindexed=count, worth=indexing.threshold(made)
            )
            return made

        try:
            made = await self._run(act)
        except VectorkitError as error:
            if isinstance(error.__cause__, pg.UniqueViolation):
                raise InvalidRecord(f"{name!r} has an id twice; nothing was adopted", field="id") from error.__cause__
            raise
        await self._index_after(Scope(collection=made.physical), 0)
        return made

    async def describe(self, name: str) -> CollectionSpec:
        return await self._run(lambda conn: self._catalogue.describe(conn, name), again=True)

    async def names(self) -> list[str]:
        return await self._run(self._catalogue.names, again=True)

    async def drop(self, name: str) -> None:
        self._writable()

        async def act(conn: Any) -> None:
            async with self._transaction(conn):
                await self._catalogue.drop(conn, name)

        await self._run(act)
        for physical in [known for known in self._known if known.rpartition("@")[0] == name]:
            self._known.pop(physical, None)

    async def _table(self, conn: Any, scope: Scope) -> _Known:
        """What is known of the scope's collection; looked at once, and its index again from time to time."""
        known = self._known.get(scope.collection)
        if known is None:
            spec = await self._catalogue.describe(conn, scope.collection.rpartition("@")[0])
            if spec.physical != scope.collection:
                raise NotFound(f"{self._pool.shown}: the collection {spec.name!r} was dropped")
            table = self._catalogue.table(spec)
            known = _Known(table, False, CALIBRATED, 0.0, worth=indexing.threshold(spec))
            self._known[scope.collection] = known
        if known.table.indexable and monotonic() - known.looked > STALE:
            known.indexed, known.width = await indexing.look(conn, self._runtime, known.table)
            known.looked = monotonic()
            if not known.indexed:  # others write too
                known.unindexed = await self._counted(conn, known.table, known.worth + 1)
        return known

    # ------------------------------------------------------------------------------------- writes

    async def write(self, scope: Scope, batch: Batch, mode: Mode) -> WriteReport:
        self._writable()

        async def act(conn: Any) -> WriteReport:
            known = await self._table(conn, scope)
            spec = known.table.spec

            def pack() -> list[list[bytes | None]]:
                convert.check_limits(spec, batch, half=known.table.half)
                return convert.rows_of(spec, batch, scope.tenant)

            rows = await heavy(self._runtime, len(batch), pack)
            return await self._write(conn, known, scope, rows, mode)

        report = await self._run(act, inserting=mode != "upsert")
        await self._index_after(scope, report.written)
        return report

    async def _write(
        self, conn: Any, known: _Known, scope: Scope, rows: list[list[bytes | None]], mode: Mode
    ) -> WriteReport:
        table, call = known.table, self._runtime.call
        rows.sort(key=_id_of)  # two writers of the same ids then wait for each other instead of deadlocking
        if mode == "upsert" and len(rows) <= FEW:
            known.empty = False
            wires = [wire for row in rows for wire in convert.row_wires(table.spec, row)]
            await call(conn.execute, table.upsert(len(rows)), wires)
            return WriteReport(written=len(rows))
        if known.empty:
            known.empty = False
            try:
                await self._copy(conn, table.copy, rows)
            except pg.UniqueViolation:  # somebody else has written there too
                pass
            else:
                return WriteReport(written=len(rows))
        async with self._transaction(conn):
            await call(conn.execute, table.stage)
            await self._copy(conn, table.copy_stage, rows)
            if mode == "upsert":
                await call(conn.execute, table.merge)
                return WriteReport(written=len(rows))
            expiring = scope.now is not None
            left = await self._all(conn, table.insert(expiring=expiring), (bigint(scope.now),) if expiring else ())  # type: ignore[arg-type]
            if left and mode == "insert":
                ids = sorted(row[0] for row in left)
                raise AlreadyExists(
                    f"{len(ids)} of the ids exist, the first is {ids[0]!r}; nothing was written", ids=ids
                )
            return WriteReport(written=len(rows) - len(left), skipped=len(left))

    async def _copy(self, conn: Any, sql: str, rows: list[list[bytes | None]]) -> None:
        async with self._runtime.enter(conn.cursor().copy(sql)) as copy:
            for piece in convert.copy_stream(rows):
                await self._runtime.call(copy.write, piece)

    async def _index_after(self, scope: Scope, written: int) -> None:
        """Build the vector index at the end of a load that makes it worth it: before, it would cost three times as much.

        The load is committed, and no answer depends on the index: what goes wrong here is logged, and tried again when the
        collection has doubled. Under a timeout nothing is built here, since that may take minutes: `optimize` does it.
        """
        known = self._known[scope.collection]
        table = known.table
        if not table.indexable or known.indexed:
            return
        known.unindexed += written
        if scope.more or known.unindexed <= known.worth or self._options.timeout is not None:
            return

        async def act(conn: Any) -> None:
            known.indexed, known.width = await indexing.look(
                conn, self._runtime, table
            )  # another process may have built it
            known.looked = monotonic()
            if known.indexed:
                return
            known.unindexed = await self._counted(conn, table, known.worth + 1)
            if known.unindexed > known.worth:  # counted: rows that were replaced are no more rows
                await self._index(conn, known)

        try:
            await self._run(act)
        except VectorkitError as error:
            known.worth = 2 * known.unindexed
            _log.warning(
                "the vector index of %r could not be built, and search stays exact: %s", table.spec.name, error
            )

    async def _counted(self, conn: Any, table: Table, most: int) -> int:
        counted = await self._all(conn, f"SELECT count(*) FROM (SELECT FROM {table.name} LIMIT {most}) AS few", ())
        return int(counted[0][0])

    async def _index(self, conn: Any, known: _Known) -> None:
        built = await indexing.build(conn, self._runtime, known.table, self._options.maintenance_mb)
        if built is not None:
            known.indexed, known.width, known.looked = True, built, monotonic()

    async def update(self, scope: Scope, ids: Sequence[str], change: Change) -> int:
        self._writable()

        async def act(conn: Any) -> int:
            known = await self._table(conn, scope)
            table, spec = known.table, known.table.spec
            touched = [name for name in spec.fields if name in change.set or name in change.unset]
            for name in touched:
                if isinstance(change.set.get(name), str | list):
                    convert.check_indexed(name, _strings(change.set[name]), None)
            declared = [(name, spec.fields[name]) for name in touched]
            numbers = [at for at, name in enumerate(spec.fields) if name in touched]
            expiring = scope.now is not None
            select = table.select(vectors=False, ids=True, where=None, expiring=expiring, lock=True)
            async with self._transaction(conn):
                found = await self._all(conn, select, (text(scope.tenant), texts(ids), *_now(scope)))
                changes = []
                for row in found:
                    metadata = decode(row[2])
                    if change.where is not None and not change.where.matches(metadata):
                        continue
                    after = change.apply(metadata)
                    wires = convert.field_wires(declared, after)
                    document = convert.Json(encode(after).encode()) if after else None
                    changes.append((document, *wires, text(scope.tenant), text(row[0])))
                if changes:
                    await self._change(conn, table.change(numbers), changes)
            return len(changes)

        return await self._run(act)

    async def _change(self, conn: Any, sql: str, changes: list[Any]) -> None:
        cursor = conn.cursor()
        try:
            await self._runtime.call(cursor.executemany, sql, changes)  # a pipeline, by psycopg
        except BaseException:
            conn.pgconn.finish()
            raise

    async def delete(self, scope: Scope, selector: Selector) -> int:
        self._writable()

        async def act(conn: Any) -> int:
            table = (await self._table(conn, scope)).table
            tenant = text(scope.tenant)
            if selector.everything:
                now = -(2**63) if scope.now is None else scope.now
                counted = await self._all(conn, table.delete_everything, (bigint(now),))
                return int(counted[0][0])
            expiring = scope.now is not None
            if selector.ids is None:
                assert selector.plan is not None
                native: Condition = selector.plan.native
                sql = table.delete(ids=False, where=native, expiring=expiring)
                return await self._changed(conn, sql, values_of(native, *_now(scope)))
            sql = table.delete(ids=True, where=None, expiring=expiring)
            if selector.plan is None:
                return await self._changed(conn, sql, (tenant, texts(selector.ids), *_now(scope)))
            select = table.select(vectors=False, ids=True, where=None, expiring=expiring, lock=True)
            async with self._transaction(conn):
                found = await self._all(conn, select, (tenant, texts(selector.ids), *_now(scope)))
                meant = [row[0] for row in found if selector.plan.where.matches(decode(row[2]))]
                return await self._changed(conn, sql, (tenant, texts(meant), *_now(scope)))

        return await self._run(act)

    # ------------------------------------------------------------------------------------- reads

    async def get(self, scope: Scope, ids: Sequence[str], *, vectors: bool) -> list[Record]:
        async def act(conn: Any) -> list[Record]:
            table = (await self._table(conn, scope)).table
            sql = table.select(vectors=vectors, ids=True, where=None, expiring=scope.now is not None)
            rows = await self._all(conn, sql, (text(scope.tenant), texts(ids), *_now(scope)))
            return [convert.record(row) for row in rows]

        return await self._run(act, again=True)

    async def query(self, scope: Scope, query: Query) -> list[Hits]:
        async def act(conn: Any) -> list[Hits]:
            known = await self._table(conn, scope)
            table, spec = known.table, known.table.spec
            native: Condition | None = None if query.plan is None else query.plan.native
            by_index = known.indexed and not query.exact and query.ids is None
            if table.half and spec.metric != "cosine" and not convert.fits_half(query.vectors):
                by_index = False
            shape: dict[str, Any] = {
                "where": native, "expiring": scope.now is not None, "k": min(query.k, MOST), "vectors": query.vectors_back,
            }  # fmt: skip
            values: dict[str, Any] = {f"p{at}": value for at, value in enumerate(values_of(native, *_now(scope)))}
            if by_index:
                sql = table.nearest(**shape)
                values["width"] = _width(spec, known.width, query)
            else:
                sql = table.nearest_exactly(ids=query.ids is not None, **shape)
                if query.ids is not None:
                    values["ids"] = texts(query.ids)
            asked = [{**values, "q": convert.query_vector(vector, spec.metric)} for vector in query.vectors]
            found = [await self._all(conn, sql, asked[0])] if len(asked) == 1 else await self._many(conn, sql, asked)
            if any(not isfinite(row[-1]) for rows in found for row in rows):
                return await self._widely(conn, table, scope, query)
            kind = "ivfflat" if isinstance(spec.index, IVF) else "hnsw"
            return [
                Hits(
                    [_hit(row, spec.metric, query.vectors_back) for row in rows],
                    coverage="complete" if by_index else "exact",
                    path=f"{kind} or a filter's index, as the planner finds"
                    if by_index
                    else "exact, every matching row",
                )
                for rows in found
            ]

        return await self._run(act, again=True)

    async def _many(self, conn: Any, sql: str, asked: list[dict[str, Any]]) -> list[list[Any]]:
        """The same statement for each, sent together: one round trip."""
        call = self._runtime.call
        async with self._together(conn):
            cursors = [await call(conn.execute, sql, values, binary=True) for values in asked]
            return [await call(cursor.fetchall) for cursor in cursors]

    @asynccontextmanager
    async def _together(self, conn: Any) -> AsyncIterator[None]:
        """A pipeline. One that breaks off leaves psycopg sure of statements that the server never prepared: it ends with it."""
        try:
            async with self._runtime.enter(conn.pipeline()):
                yield
        except BaseException:
            conn.pgconn.finish()
            raise

    async def _widely(self, conn: Any, table: Table, scope: Scope, query: Query) -> list[Hits]:
        """The same answer where float32, which pgvector sums in, overflows."""
        wanted = None if query.ids is None else set(query.ids)
        found: list[list[tuple[float, Record]]] = [[] for _ in query.vectors]
        cursor: Cursor | None = None
        while True:
            page = await self._page(conn, table, scope, query.plan, cursor, limit=WIDE_PAGE, vectors=True)
            records = [record for record in page.records if wanted is None or record.id in wanted]
            wide.keep(found, table.spec.metric, query.vectors, query.k, records)
            cursor = page.cursor
            if cursor is None:
                break
        return [
            Hits(
                [
                    make_hit(r.id, score, r.text, r.metadata, r.vector if query.vectors_back else None)  # type: ignore[arg-type]
                    for score, r in best
                ],
                coverage="exact",
                path="exact, every matching row, scored outside the server: its float32 overflows",
            )
            for best in found
        ]

    async def keyword(self, scope: Scope, query: KeywordQuery) -> Hits:
        async def act(conn: Any) -> Hits:
            table = (await self._table(conn, scope)).table
            native: Condition | None = None if query.plan is None else query.plan.native
            sql = table.keyword(
                ids=query.ids is not None,
                where=native,
                expiring=scope.now is not None,
                k=min(query.k, MOST),
                vectors=query.vectors_back,
            )
            values: dict[str, Any] = {f"p{at}": value for at, value in enumerate(values_of(native, *_now(scope)))}
            said = " ".join(query.words)
            if len(said.encode()) > convert.MAX_TEXT:
                raise InvalidArgument(f"pgvector takes up to {convert.MAX_TEXT} bytes of words in a query")
            values["text"] = text(said)
            if query.ids is not None:
                values["ids"] = texts(query.ids)
            rows = await self._all(conn, sql, values)
            hits = [make_hit(*_seen(row, query.vectors_back, float(row[-1]))) for row in rows]
            return Hits(hits, coverage="exact", path="tsvector by GIN, BM25")

        return await self._run(act, again=True)

    async def count(self, scope: Scope, plan: Plan | None) -> int:
        async def act(conn: Any) -> int:
            table = (await self._table(conn, scope)).table
            native: Condition | None = None if plan is None else plan.native
            sql = table.count(where=native, expiring=scope.now is not None)
            return int((await self._all(conn, sql, values_of(native, *_now(scope))))[0][0])

        return await self._run(act, again=True)

    async def page(self, scope: Scope, plan: Plan | None, cursor: Cursor | None, *, limit: int, vectors: bool) -> Page:
        async def act(conn: Any) -> Page:
            table = (await self._table(conn, scope)).table
            return await self._page(conn, table, scope, plan, cursor, limit=limit, vectors=vectors)

        return await self._run(act, again=True)

    async def _page(
        self,
        conn: Any,
        table: Table,
        scope: Scope,
        plan: Plan | None,
        cursor: Cursor | None,
        *,
        limit: int,
        vectors: bool,
    ) -> Page:
        native: Condition | None = None if plan is None else plan.native
        sql = table.page(vectors=vectors, where=native, expiring=scope.now is not None, limit=limit + 1)
        after = "" if cursor is None else cursor.position
        rows = await self._all(conn, sql, (text(scope.tenant), text(after), *values_of(native, *_now(scope))))
        records = [convert.record(row) for row in rows[:limit]]
        return Page(records, Cursor(None, records[-1].id) if len(rows) > limit else None)

    async def stats(self, scope: Scope) -> Stats:
        async def act(conn: Any) -> Stats:
            known = await self._table(conn, scope)
            known.indexed, known.width = await indexing.look(conn, self._runtime, known.table)
            sql = known.table.count(where=None, expiring=scope.now is not None)
            rows = int((await self._all(conn, sql, _now(scope)))[0][0])
            sizes, dead = await indexing.sizes(conn, self._runtime, known.table)
            return Stats(
                rows=rows,
                index=type(known.table.spec.index).__name__.lower(),
                indexed=rows if known.indexed else 0,
                tombstones=dead / max(1, dead + rows),
                bytes=sizes,
            )

        return await self._run(act, again=True)

    async def optimize(self, name: str) -> None:
        self._writable()

        async def act(conn: Any) -> None:
            known = await self._table(conn, Scope(collection=name))
            known.looked = 0.0
            known = await self._table(conn, Scope(collection=name))
            if known.table.indexable and not known.indexed:
                known.worth = indexing.threshold(known.table.spec)
                known.unindexed = await self._counted(conn, known.table, known.worth + 1)
                if known.unindexed > known.worth:
                    await self._index(conn, known)
            await self._runtime.call(conn.execute, f"VACUUM (ANALYZE) {known.table.name}")

        await self._run(act, own=True)

    async def close(self) -> None:
        await self._pool.close()


def _check(spec: CollectionSpec) -> None:
    """Refuse an index that pgvector does not have, and a table that PostgreSQL does not."""
    index = spec.index
    if len(spec.fields) > MOST_FIELDS:
        raise Unsupported(
            f"pgvector holds up to {MOST_FIELDS} declared fields, got {len(spec.fields)}; declare those you filter by"
        )
    if not isinstance(index, Flat) and index.quantization not in (None, "fp16"):
        raise Unsupported(f"pgvector has no {index.quantization} quantization; use fp16, which is its halfvec, or None")
    if isinstance(index, HNSW) and index.m > 100:
        raise Unsupported(f"pgvector's HNSW takes m up to 100, asked for {index.m}")
    if isinstance(index, HNSW) and index.ef_construction > 1_000:
        raise Unsupported(f"pgvector's HNSW takes ef_construction up to 1000, asked for {index.ef_construction}")


def _id_of(row: list[bytes | None]) -> bytes:
    return row[1] or b""


def _strings(value: Any) -> Any:
    return value if isinstance(value, str) or (value and isinstance(value[0], str)) else ()


def _now(scope: Scope) -> tuple[Wire, ...]:
    return () if scope.now is None else (bigint(scope.now),)


def _width(spec: CollectionSpec, measured: int, query: Query) -> Wire:
    """How widely to search: as asked, as the spec says, or as measured when the index was built; never below k."""
    return text(str(indexing.width(spec, measured, query.k, query.ef_search, query.probes)))


def _seen(row: Sequence[Any], vectors: bool, score: float) -> tuple[Any, ...]:
    vector = convert.stored_vector(row[3], row[4]) if vectors else None
    return row[0], score, row[1], decode(row[2]), vector


def _hit(row: Sequence[Any], metric: str, vectors: bool) -> Any:
    distance = row[-1]
    score = 1.0 - distance if metric == "cosine" else -distance
    return make_hit(*_seen(row, vectors, score))


async def _open(target: Target, runtime: Runtime) -> PgvectorAdapter:
    options = target.options if target.options is not None else PgvectorOptions()
    pool = Pool(target, options, runtime)
    await pool.open()
    try:
        async with pool.lease(pool.deadline()) as conn:
            place = await prepare(conn, runtime, options.schema, target.shown, read_only=target.read_only)
    except BaseException as error:
        await pool.close()
        if isinstance(error, psycopg.Error):
            raise translated(error, target.shown) from error
        raise
    catalogue = Catalogue(place, runtime, target.shown)
    return PgvectorAdapter(pool, catalogue, runtime, options, read_only=target.read_only)


BACKEND = Backend(store="pgvector", open=_open, place="server", options=PgvectorOptions, parameters=PARAMETERS)
