"""Qdrant as an Adapter, over a server or the engine in this process: the verbs, and what they need of rows."""

import math
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

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
from vectorkit.codec import NEVER, copy_metadata
from vectorkit.errors import AlreadyExists, Corrupt, NotFound, Unsupported
from vectorkit.filters import Node
from vectorkit.local.exact import prepare, score
from vectorkit.ranking import tie_floor, top
from vectorkit.runtime import Runtime
from vectorkit.types import HNSW, IVF, Batch, CollectionSpec, Cursor, FloatArray, Hit, Hits, Metric, Page, Record, Stats, make_hit
from vectorkit.words import tokens
from vectorkit_qdrant import convert, filters
from vectorkit_qdrant.engine import Engine, Row, Search
from vectorkit_qdrant.filters import Condition, alive, among, both
from vectorkit_qdrant.options import QdrantOptions

READ = 1_000  # rows in one request of a scan of our own
MOST = 2**31 - 1  # what the engine takes for a limit
SEEN = ("_vk_id", "_vk_expires", "_vk_seq")

CAPABILITY = Capability(
    store="qdrant",
    durable=True,
    exact=True,
    keyword=True,
    keyword_statistics="shared",
    insert="atomic",
    update="atomic",
    consistency="read_your_writes",
    expiry=True,
    read_only=False,
    deadline=False,
    ef_search=True,
    indexes=frozenset({"flat", "hnsw"}),
    pushdown=frozenset(
        {"$eq", "$gt", "$gte", "$lt", "$lte", "$in", "$contains_any", "$contains_all", "$startswith", "$exists"}
    ),
)


class QdrantAdapter:
    """The collections of one Qdrant."""

    def __init__(
        self, engine: Engine, options: QdrantOptions, runtime: Runtime, capability: Capability, *, read_only: bool = False
    ) -> None:
        self._engine = engine
        self._read_only = read_only
        self._options = options
        self._runtime = runtime
        self._specs: dict[str, CollectionSpec] = {}
        self._last = 0
        self._clock = threading.Lock()
        self.capability = capability

    @property
    def native(self) -> Any:
        """The official client of a server, or the engine's shards by physical name."""
        return self._engine.native

    def plan(self, spec: CollectionSpec, where: Node) -> Plan:
        return filters.plan(spec, where)

    def _writable(self) -> None:
        if self._read_only:
            raise Unsupported(f"{self._engine.shown} was opened with read_only=True; connect without it to write")

    def _sequence(self, count: int) -> int:
        """The first of so many sequence numbers: the clock in microseconds, rising."""
        with self._clock:
            first = max(self._last + 1, time.time_ns() // 1_000)
            self._last = first + count - 1
            return first

    # ------------------------------------------------------------------------------------- collections

    async def create(self, spec: CollectionSpec) -> CollectionSpec:
        self._writable()
        if isinstance(spec.index, HNSW | IVF) and spec.index.quantization is not None:
            raise Unsupported(f"qdrant is asked for float32 here, not for {spec.index.quantization}; leave quantization=None")
        made = await self._engine.create(spec)
        self._specs[made.physical] = made
        return made

    async def adopt(self, name: str, spec: CollectionSpec, rows: Iterable[Record] | None) -> CollectionSpec:
        self._writable()
        raise Unsupported("qdrant does not adopt")

    async def describe(self, name: str) -> CollectionSpec:
        spec = (await self._engine.specs()).get(name)
        if spec is None:
            raise NotFound(f"{self._engine.shown} has no collection {name!r}")
        self._specs[spec.physical] = spec
        return spec

    async def names(self) -> list[str]:
        return sorted(await self._engine.specs())

    async def drop(self, name: str) -> None:
        self._writable()
        await self._engine.drop(name)

    async def _spec(self, scope: Scope) -> CollectionSpec:
        spec = self._specs.get(scope.collection)
        if spec is None:
            spec = await self.describe(scope.collection.rpartition("@")[0])
            if spec.physical != scope.collection:
                raise NotFound(f"{self._engine.shown}: the collection {spec.name!r} was dropped and made anew")
        return spec

    # ------------------------------------------------------------------------------------- writes

    async def write(self, scope: Scope, batch: Batch, mode: Mode) -> WriteReport:
        self._writable()
        spec = await self._spec(scope)
        if mode == "upsert":
            await self._put(scope, spec, batch, fresh=False)
            return WriteReport(written=len(batch))
        async with self._engine.changing(scope.collection):
            points = {convert.point_id(id, scope.tenant): id for id in batch.ids}  # noqa: A001
            found = await self._engine.retrieve(scope.collection, list(points), keys=SEEN)
            there = {points[row.point] for row in found if _lives(row, scope.now)}
            if there and mode == "insert":
                ids = [id for id in batch.ids if id in there]  # noqa: A001
                raise AlreadyExists(f"{len(ids)} of the ids exist, the first is {ids[0]!r}; nothing was written", ids=ids)
            if expired := [row.point for row in found if not _lives(row, scope.now)]:
                assert scope.now is not None
                past = {"key": "_vk_expires", "range": {"lte": scope.now}}
                await self._engine.delete(scope.collection, _all(among(expired), past))
            kept = [row for row, id in enumerate(batch.ids) if id not in there]  # noqa: A001
            if kept:
                await self._put(scope, spec, batch if len(kept) == len(batch) else _take(batch, kept), fresh=True)
            return WriteReport(written=len(kept), skipped=len(there))

    async def _put(self, scope: Scope, spec: CollectionSpec, batch: Batch, *, fresh: bool) -> None:
        vectors, norms = convert.as_stored(spec, batch.vectors)
        payloads = convert.payloads(spec, batch, scope.tenant, self._sequence(len(batch)), norms)
        points = [convert.point_id(id, scope.tenant) for id in batch.ids]  # noqa: A001
        await self._engine.upsert(scope.collection, points, vectors, payloads, fresh=fresh)

    async def update(self, scope: Scope, ids: Sequence[str], change: Change) -> int:
        self._writable()
        spec = await self._spec(scope)
        points = [convert.point_id(id, scope.tenant) for id in ids]  # noqa: A001
        async with self._engine.changing(scope.collection):
            after: dict[str, dict[str, Any]] = {}
            seen: dict[str, int] = {}
            for row in await self._engine.retrieve(scope.collection, points):
                if not _lives(row, scope.now):
                    continue
                metadata = self._metadata(row)
                if change.where is None or change.where.matches(metadata):
                    after[row.point] = convert.changed(spec, row.payload, change.apply(metadata), self._sequence(1))
                    seen[row.point] = int(row.payload.get("_vk_seq", 0))
            if after:
                await self._engine.overwrite(scope.collection, after, seen)
            return len(after)

    async def delete(self, scope: Scope, selector: Selector) -> int:
        self._writable()
        await self._spec(scope)
        async with self._engine.changing(scope.collection):
            if selector.ids is not None:
                return await self._delete_ids(scope, selector.ids, selector.plan)
            where = self._where(scope, selector.plan)
            count = await self._engine.count(scope.collection, where)
            if count:
                await self._engine.delete(scope.collection, {"must": []} if where is None else where)
            return count

    async def _delete_ids(self, scope: Scope, ids: Sequence[str], plan: Plan | None) -> int:
        points = [convert.point_id(id, scope.tenant) for id in ids]  # noqa: A001
        keys = SEEN if plan is None else None
        found = await self._engine.retrieve(scope.collection, points, keys=keys)
        meant = [
            row.point
            for row in found
            if _lives(row, scope.now) and (plan is None or plan.where.matches(self._metadata(row)))
        ]
        if meant:
            await self._engine.delete(scope.collection, among(meant))
        return len(meant)

    # ------------------------------------------------------------------------------------- reads

    def _where(self, scope: Scope, plan: Plan | None, *more: Condition | None) -> Condition | None:
        return both(None if plan is None else plan.native, alive(scope.now), *more)

    def _metadata(self, row: Row) -> dict[str, Any]:
        try:
            return convert.metadata_of(row.payload)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damaged(row, error) from error

    def _record(self, row: Row) -> Record:
        try:
            return convert.record_of(row.payload, row.vector)
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise self._damaged(row, error) from error

    def _damaged(self, row: Row, error: Exception) -> Corrupt:
        named = row.payload.get("_vk_id", row.point)
        return Corrupt(f"{self._engine.shown}: what is stored of the row {named!r} is damaged ({error}); write that row again")

    async def get(self, scope: Scope, ids: Sequence[str], *, vectors: bool) -> list[Record]:
        await self._spec(scope)
        points = {convert.point_id(id, scope.tenant): id for id in ids}  # noqa: A001
        found = await self._engine.retrieve(scope.collection, list(points), vectors=vectors)
        return [
            self._record(row)
            for row in found
            if row.payload.get("_vk_id") == points[row.point] and _lives(row, scope.now)
        ]

    async def count(self, scope: Scope, plan: Plan | None) -> int:
        return await self._engine.count(scope.collection, self._where(scope, plan))

    async def page(self, scope: Scope, plan: Plan | None, cursor: Cursor | None, *, limit: int, vectors: bool) -> Page:
        start = None if cursor is None else cursor.position
        where = self._where(scope, plan)
        rows, following = await self._engine.scroll(scope.collection, where, limit, start, vectors=vectors)
        return Page(list(map(self._record, rows)), None if following is None else Cursor(None, following))

    async def stats(self, scope: Scope) -> Stats:
        spec = await self._spec(scope)
        size = await self._engine.size(scope.collection)
        rows = size.rows if scope.now is None else await self.count(scope, None)
        return Stats(rows=rows, index="hnsw" if isinstance(spec.index, HNSW) else "flat", indexed=size.indexed, bytes=size.bytes)

    async def optimize(self, name: str) -> None:
        self._writable()
        await self._engine.optimize(name)

    async def close(self) -> None:
        await self._engine.close()

    # ------------------------------------------------------------------------------------- queries

    async def query(self, scope: Scope, query: Query) -> list[Hits]:
        spec = await self._spec(scope)
        where = self._where(scope, query.plan, None if query.ids is None else self._among(scope, query.ids))
        asked, _ = convert.as_stored(spec, query.vectors)
        searches = [
            Search(
                vector=vector,
                where=where,
                limit=query.k,
                vectors=query.vectors_back,
                exact=query.exact,
                ef=query.ef_search,
            )
            for vector in asked
        ]
        found = await self._search(scope, spec.metric, searches)
        return [await self._hits(scope, spec, query, where, vector, rows) for vector, rows in zip(asked, found, strict=True)]

    async def _search(self, scope: Scope, metric: Metric, searches: Sequence[Search]) -> list[list[Row]]:
        """The best of each and all that tie with the last of them: which of equals comes first is not Qdrant's to say."""
        found: list[list[Row]] = [[] for _ in searches]
        open_ = list(range(len(searches)))
        limits = [min(search.limit, MOST - 1) + 1 for search in searches]
        while open_:
            asked = [replace(searches[at], limit=limits[at]) for at in open_]
            answers = await self._engine.search(scope.collection, asked)
            again = []
            for at, rows in zip(open_, answers, strict=True):
                found[at] = rows
                if len(rows) == limits[at] < MOST and _tied(metric, rows[searches[at].limit - 1], rows[-1]):
                    limits[at] = min(4 * limits[at], MOST)
                    again.append(at)
            open_ = again
        return found

    def _among(self, scope: Scope, ids: Sequence[str]) -> Condition:
        return among([convert.point_id(id, scope.tenant) for id in ids])  # noqa: A001

    async def _hits(
        self, scope: Scope, spec: CollectionSpec, query: Query, where: Condition | None, vector: FloatArray, rows: list[Row]
    ) -> Hits:
        measured = [convert.score(spec.metric, row.score) for row in rows]
        if not all(map(math.isfinite, measured)):
            return await self._exactly(scope, spec, query, where, vector)
        if spec.metric != "cosine" and len(rows) < query.k and await self._engine.count(scope.collection, where) > len(rows):
            return await self._exactly(scope, spec, query, where, vector)  # what overflowed is left out
        exact = query.exact or not isinstance(spec.index, HNSW)
        hits = Hits(coverage="exact" if exact else "complete", path="every vector" if exact else "HNSW")
        hits.extend(self._hit(row, score) for row, score in zip(rows, measured, strict=True))
        return hits

    def _hit(self, row: Row, score: float) -> Hit:
        try:
            vector = None if row.vector is None else convert.vector_of(row.payload, row.vector)
            return make_hit(row.payload["_vk_id"], score, row.payload.get("_vk_text"), convert.metadata_of(row.payload), vector)
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise self._damaged(row, error) from error

    async def _exactly(
        self, scope: Scope, spec: CollectionSpec, query: Query, where: Condition | None, vector: FloatArray
    ) -> Hits:
        """Every matching vector read and scored in float64: the engine's float32 overflowed."""
        rows: list[Row] = []
        parts: list[Any] = []
        start: str | None = None
        while True:
            found, start = await self._engine.scroll(scope.collection, where, READ, start, vectors=True)
            if found:
                stored = np.array([row.vector for row in found], np.float32)
                with np.errstate(all="ignore"):
                    parts.append(score(prepare(stored, spec.metric), vector, spec.metric))
                rows += found
            if len(rows) > self._options.exact_limit:
                raise Unsupported(
                    f"qdrant's float32 cannot hold these scores, and more than {self._options.exact_limit} rows would be "
                    "read to measure them; the limit is QdrantOptions(exact_limit=…)"
                )
            if start is None:
                break
        hits = Hits(coverage="exact", path=f"exact, {len(rows)} vectors read")
        if not rows:
            return hits
        ranked = top(np.concatenate(parts), np.arange(len(rows)), [row.payload["_vk_id"] for row in rows], query.k)
        for slot, measured in ranked:
            row = rows[slot] if query.vectors_back else replace(rows[slot], vector=None)
            hits.append(self._hit(row, measured))
        return hits

    async def keyword(self, scope: Scope, query: KeywordQuery) -> Hits:
        where = self._where(scope, query.plan, None if query.ids is None else self._among(scope, query.ids))
        text = " ".join(dict.fromkeys(tokens(query.text)))
        search = Search(text=text, where=where, limit=query.k, vectors=query.vectors_back)
        (rows,) = await self._search(scope, "dot", [search])
        hits = Hits(coverage="exact", path="full-text index, BM25")
        hits.extend(self._hit(row, row.score or 0.0) for row in rows)
        return hits


def _tied(metric: Metric, last: Row, beyond: Row) -> bool:
    return convert.score(metric, beyond.score) >= tie_floor(convert.score(metric, last.score))


def _lives(row: Row, now: int | None) -> bool:
    return now is None or int(row.payload.get("_vk_expires", NEVER)) > now


def _all(*conditions: Condition) -> Condition:
    joined = both(*conditions)
    assert joined is not None
    return joined


def _take(batch: Batch, rows: list[int]) -> Batch:
    def column(values: Sequence[Any] | None) -> list[Any] | None:
        return None if values is None else [values[row] for row in rows]

    return Batch(
        [batch.ids[row] for row in rows],
        batch.vectors[rows],
        column(batch.texts),
        column(batch.metadata),
        column(batch.expires_at),
    )


# --------------------------------------------------------------------------------------------- the way in


async def open_qdrant(target: Target, runtime: Runtime) -> Adapter:
    """Open what a URL names: a directory, one of our own for `qdrant+memory://`, or a server."""
    options = target.options if target.options is not None else QdrantOptions()
    if target.host:
        from vectorkit_qdrant.server import Server

        server = Server(target, options, runtime)
        return QdrantAdapter(
            server, options, runtime, replace(CAPABILITY, read_only=True), read_only=target.read_only
        )
    if target.read_only:
        raise Unsupported("qdrant has one owner for a directory, and no read_only=True beside it")
    from vectorkit_qdrant.edge import open_edge

    path = "" if target.scheme == "qdrant+memory" else target.path
    engine = await runtime.offload(lambda: open_edge(path, target.shown, options, runtime))
    return QdrantAdapter(engine, options, runtime, replace(CAPABILITY, durable=bool(path)))
