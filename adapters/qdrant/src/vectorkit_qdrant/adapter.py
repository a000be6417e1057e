"""Qdrant as an Adapter, over a server or the engine in this process: the verbs, and what they need of rows."""

import math
import random
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

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
from vectorkit.codec import NEVER, decode
from vectorkit.errors import (
    AlreadyExists,
    Ambiguous,
    ConfigError,
    Corrupt,
    InvalidArgument,
    InvalidRecord,
    NotFound,
    Unavailable,
    Unsupported,
    VectorkitError,
)
from vectorkit.filters import Node
from vectorkit.local.exact import prepare, score
from vectorkit.ranking import tie_floor, top
from vectorkit.runtime import Runtime, heavy
from vectorkit.sequence import Rising
from vectorkit.types import (
    HNSW,
    Batch,
    CollectionSpec,
    Cursor,
    Flat,
    FloatArray,
    Hits,
    Metric,
    Page,
    Record,
    Stats,
    make_hit,
    take,
)
from vectorkit.words import tokens
from vectorkit_qdrant import convert, filters
from vectorkit_qdrant.adopt import Source
from vectorkit_qdrant.engine import Engine, Row, Search
from vectorkit_qdrant.filters import Condition, alive, among, both, past
from vectorkit_qdrant.options import QdrantOptions, codes_of, oversampling_of

READ = 1_000  # rows in one request of a scan of our own
MOST = 2**31 - 1  # what the engine takes for a limit
SEEN = ("_vk_id", "_vk_expires", "_vk_seq")
INSERTED = ("_vk_id", "_vk_insert")
WHOLE = ("_vk_id", "_vk_meta", "_vk_text", "_vk_expires", "_vk_norm")
SHOWN = ("_vk_id", "_vk_meta", "_vk_text")
ATTEMPTS = 40  # at an update whose rows somebody else changes too
HANDLES = 2_048  # by which handles tell their sequence numbers apart

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
        self,
        engine: Engine,
        options: QdrantOptions,
        runtime: Runtime,
        capability: Capability,
        *,
        read_only: bool = False,
    ) -> None:
        self._engine = engine
        self._read_only = read_only
        self._options = options
        self._runtime = runtime
        self._specs: dict[str, CollectionSpec] = {}
        self._handle = secrets.randbelow(HANDLES)
        self._sequence = Rising()
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

    def _sequences(self, count: int) -> range:
        """So many sequence numbers, rising: microseconds of the clock, and a number of this handle, since by them it is told
        whose write a row is from."""
        first = self._sequence.next(count)
        return range(first * HANDLES + self._handle, (first + count) * HANDLES, HANDLES)

    # ------------------------------------------------------------------------------------- collections

    async def create(self, spec: CollectionSpec) -> CollectionSpec:
        self._writable()
        self._check(spec)
        made = await self._engine.create(spec)
        self._specs[made.physical] = made
        return made

    def _check(self, spec: CollectionSpec) -> None:
        codes_of(spec, self._options)
        field = self._options.tenant_field
        if field is not None and spec.fields.get(field) is not str:
            raise InvalidArgument(f"tenant_field names {field!r}, which {spec.name!r} does not declare as str")

    async def adopt(self, name: str, spec: CollectionSpec, rows: Iterable[Record] | None) -> CollectionSpec:
        """Copy `collection?vector=…&id=…&text=…&metadata=…` into a collection that is published when it is whole."""
        self._writable()
        self._check(spec)
        if rows is not None:
            raise InvalidArgument("a Qdrant collection has its texts and metadata with it; leave rows= out")
        source = Source.parse(name, self._engine.shown)
        source.check(await self._engine.foreign(source.collection), spec)
        made = await self._engine.create(spec, hidden=True)
        try:
            await self._copy(source, made)
            await self._engine.publish(made)
        except BaseException:
            await self._runtime.finish(self._discard(made))
            raise
        self._specs[made.physical] = made
        return made

    async def _discard(self, made: CollectionSpec) -> None:
        with suppress(VectorkitError):
            await self._engine.discard(made)

    async def _copy(self, source: Source, made: CollectionSpec) -> None:
        scope = Scope(collection=made.physical)
        start: str | int | None = None
        done = 0
        while True:
            found, start = await self._engine.foreign_page(source.collection, READ, start, vectors=source.vectors)
            if found:
                await self._put(scope, made, source.batch(made, found, done))
                done += len(found)
            if start is None:
                break
        if (kept := await self._engine.count(made.physical, None)) < done:
            raise InvalidRecord(
                f"{source.shown}: {done - kept} of {done} points have an id that another of them has; name another with id=",
                field="id",
            )

    async def describe(self, name: str) -> CollectionSpec:
        spec = await self._engine.describe(name, read_only=self._read_only)
        self._specs[spec.physical] = spec
        return spec

    async def names(self) -> list[str]:
        return await self._engine.names()

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
        async with self._engine.changing(scope.collection):
            if mode == "upsert":
                await self._put(scope, spec, batch)
                return WriteReport(written=len(batch))
            points = _points(scope, batch.ids)
            found = await self._engine.retrieve(scope.collection, list(points), keys=SEEN)
            there = {points[row.point] for row in found if self._lives(row, scope.now)}
            if there and mode == "insert":
                raise _conflict(batch.ids, there)
            if expired := [row.point for row in found if not self._lives(row, scope.now)]:
                await self._engine.delete(scope.collection, _all(among(expired), past(scope.now)))
            kept = [row for row, id in enumerate(batch.ids) if id not in there]  # noqa: A001
            if kept:
                fresh = batch if len(kept) == len(batch) else take(batch, kept)
                mark = secrets.randbits(62) if self._engine.shared else 0
                await self._put(scope, spec, fresh, mark)
                if mark:
                    there |= await self._taken(scope, fresh, mark, mode)
            return WriteReport(written=len(batch) - len(there), skipped=len(there))

    async def _put(self, scope: Scope, spec: CollectionSpec, batch: Batch, mark: int | None = None) -> None:
        """mark: None to write over what is there, else leave that alone; not 0: what the rows of this insert are known by."""

        def prepare() -> tuple[list[str], FloatArray, list[dict[str, Any]]]:
            vectors, norms = convert.as_stored(spec, batch.vectors)
            payloads = convert.payloads(spec, batch, scope.tenant, self._sequences(len(batch)), norms)
            if mark:
                for payload in payloads:
                    payload["_vk_insert"] = mark
            return list(_points(scope, batch.ids)), vectors, payloads

        points, vectors, payloads = await heavy(self._runtime, len(batch), prepare)
        await self._engine.upsert(scope.collection, points, vectors, payloads, fresh=mark is not None)

    async def _taken(self, scope: Scope, batch: Batch, mark: int, mode: Mode) -> set[str]:
        """The ids that another handle has inserted since they were looked for. An "insert" takes its own rows back then."""
        points = _points(scope, batch.ids)
        try:
            found = await self._engine.retrieve(scope.collection, list(points), keys=INSERTED)
            taken = {points[row.point] for row in found if row.payload.get("_vk_insert") != mark}
            if taken and mode == "insert":
                own = [point for point, id in points.items() if id not in taken]  # noqa: A001
                if own:
                    await self._engine.delete(
                        scope.collection, _all(among(own), {"key": "_vk_insert", "match": {"value": mark}})
                    )
        except NotFound:
            raise
        except VectorkitError as error:
            raise Ambiguous(
                f"an insert may have been written; get() tells whether the rows are there: {error}"
            ) from error
        if taken and mode == "insert":
            raise _conflict(batch.ids, taken)
        return taken

    async def update(self, scope: Scope, ids: Sequence[str], change: Change) -> int:
        self._writable()
        spec = await self._spec(scope)
        left = list(_points(scope, ids))
        touched = 0
        pause = 0.002
        async with self._engine.changing(scope.collection):
            for _ in range(ATTEMPTS):
                sent, seen = await self._changed(scope, spec, left, change)
                if sent:
                    await self._engine.overwrite(scope.collection, sent, seen)
                if not sent or not self._engine.shared:
                    return touched + len(sent)
                found = await self._engine.retrieve(scope.collection, list(sent), keys=SEEN)
                left = [row.point for row in found if row.payload.get("_vk_seq") != sent[row.point]["_vk_seq"]]
                touched += len(found) - len(left)
                if not left:
                    return touched
                pause = min(2 * pause, 0.2)
                await self._runtime.sleep(random.uniform(0, pause))  # noqa: S311 - so that two do not meet again
        raise Unavailable(
            f"{self._engine.shown}: {len(left)} rows were changed by others {ATTEMPTS} times; update them again"
        )

    async def _changed(
        self, scope: Scope, spec: CollectionSpec, points: Sequence[str], change: Change
    ) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
        """The payloads after a change of those rows that it concerns, and the sequence numbers that they had before."""
        sent: dict[str, dict[str, Any]] = {}
        seen: dict[str, int] = {}
        for row in await self._engine.retrieve(scope.collection, points):
            if not self._lives(row, scope.now):
                continue
            metadata = self._metadata(row)
            if change.where is None or change.where.matches(metadata):
                (sequence,) = self._sequences(1)
                sent[row.point] = convert.changed(spec, row.payload, change.apply(metadata), sequence)
                seen[row.point] = self._number(row, "_vk_seq", 0)
        return sent, seen

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
        keys = SEEN if plan is None else (*SEEN, "_vk_meta")
        found = await self._engine.retrieve(scope.collection, list(_points(scope, ids)), keys=keys)
        meant = [
            row
            for row in found
            if self._lives(row, scope.now) and (plan is None or plan.where.matches(self._metadata(row)))
        ]
        if not meant:
            return 0
        where = among([row.point for row in meant])
        if plan is not None:  # as they were looked at
            where = _all(
                where, {"key": "_vk_seq", "match": {"any": [self._number(row, "_vk_seq", 0) for row in meant]}}
            )
        await self._engine.delete(scope.collection, where)
        return len(meant)

    # ------------------------------------------------------------------------------------- reads

    def _where(self, scope: Scope, plan: Plan | None, *more: Condition | None) -> Condition | None:
        return both(None if plan is None else plan.native, alive(scope.now), *more)

    def _metadata(self, row: Row) -> dict[str, Any]:
        try:
            return convert.metadata_of(row.payload)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damaged(row, error) from error

    def _number(self, row: Row, key: str, otherwise: int) -> int:
        value = row.payload.get(key, otherwise)
        if type(value) is not int:
            raise self._damaged(row, ValueError(f"{key} is no integer"))
        return value

    def _lives(self, row: Row, now: int | None) -> bool:
        return now is None or self._number(row, "_vk_expires", NEVER) > now

    def _record(self, row: Row) -> Record:
        try:
            return convert.record_of(row.payload, row.vector)
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise self._damaged(row, error) from error

    def _damaged(self, row: Row, error: Exception) -> Corrupt:
        named = row.payload.get("_vk_id", row.point)
        return Corrupt(
            f"{self._engine.shown}: what is stored of the row {named!r} is damaged ({error}); write that row again"
        )

    async def get(self, scope: Scope, ids: Sequence[str], *, vectors: bool) -> list[Record]:
        await self._spec(scope)
        points = _points(scope, ids)
        found = await self._engine.retrieve(scope.collection, list(points), vectors=vectors, keys=WHOLE)
        return [
            self._record(row)
            for row in found
            if row.payload.get("_vk_id") == points[row.point] and self._lives(row, scope.now)
        ]

    async def count(self, scope: Scope, plan: Plan | None) -> int:
        return await self._engine.count(scope.collection, self._where(scope, plan))

    async def page(self, scope: Scope, plan: Plan | None, cursor: Cursor | None, *, limit: int, vectors: bool) -> Page:
        start = None if cursor is None else cursor.position
        where = self._where(scope, plan)
        rows, following = await self._engine.scroll(scope.collection, where, limit, start, vectors=vectors, keys=WHOLE)
        return Page(list(map(self._record, rows)), None if following is None else Cursor(None, following))

    async def stats(self, scope: Scope) -> Stats:
        spec = await self._spec(scope)
        size = await self._engine.size(scope.collection)
        rows = await self.count(scope, None)
        return Stats(
            rows=rows, index="flat" if isinstance(spec.index, Flat) else "hnsw", indexed=size.indexed, bytes=size.bytes
        )

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
        over = oversampling_of(spec, self._options)
        searches = [
            Search(
                vector=vector,
                where=where,
                limit=min(query.k, MOST),
                vectors=query.vectors_back,
                exact=query.exact or isinstance(spec.index, Flat),
                ef=min(query.ef_search or _width(spec), MOST),
                oversampling=over,
                keys=WHOLE if query.vectors_back else SHOWN,
            )
            for vector in asked
        ]
        if query.exact:
            found = await self._all_tied(scope, spec.metric, searches)
        else:
            found = await self._engine.search(scope.collection, searches)
        total = None
        if any(len(rows) < query.k for rows in found):  # is that all there is? What overflows float32 Qdrant leaves out
            total = await self._engine.count(scope.collection, where)
        return [
            await self._hits(scope, spec, query, where, vector, rows, total)
            for vector, rows in zip(asked, found, strict=True)
        ]

    async def _all_tied(self, scope: Scope, metric: Metric, searches: Sequence[Search]) -> list[list[Row]]:
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
                    limits[at] = min(16 * limits[at], MOST)
                    again.append(at)
            open_ = again
        return found

    def _among(self, scope: Scope, ids: Sequence[str]) -> Condition:
        return among(list(_points(scope, ids)))

    async def _hits(
        self,
        scope: Scope,
        spec: CollectionSpec,
        query: Query,
        where: Condition | None,
        vector: FloatArray,
        rows: list[Row],
        total: int | None,
    ) -> Hits:
        """total: the rows that match, where fewer than k came back for some vector."""
        measured = convert.scores(spec.metric, [row.score for row in rows])
        exact = query.exact or isinstance(spec.index, Flat)
        missing = total is not None and len(rows) < min(query.k, total)
        if (missing and exact) or not all(map(math.isfinite, measured)):
            return await self._exactly(scope, spec, query, where, vector)
        if missing:
            hits = Hits(coverage="short", path="HNSW")
        elif exact or len(rows) == total:
            hits = Hits(coverage="exact", path="every vector" if exact else "HNSW, every row that matches")
        else:
            hits = Hits(coverage="complete", path="HNSW")
        return self._fill(hits, rows, measured)

    def _fill(self, hits: Hits, rows: Sequence[Row], measured: Sequence[float]) -> Hits:
        for row, found in zip(rows, measured, strict=True):
            payload = row.payload
            try:
                vector = None if row.vector is None else convert.vector_of(payload, row.vector)
                id, text = convert.named(payload)  # noqa: A001
                hits.append(make_hit(id, found, text, decode(payload.get("_vk_meta")), vector))
            except (KeyError, ValueError, TypeError, RecursionError) as error:
                raise self._damaged(row, error) from error
        return hits

    async def _exactly(
        self, scope: Scope, spec: CollectionSpec, query: Query, where: Condition | None, vector: FloatArray
    ) -> Hits:
        """Every matching vector read and scored in float64: the engine's float32 overflowed."""
        rows: list[Row] = []
        parts: list[Any] = []
        start: str | int | None = None
        while True:
            found, start = await self._engine.scroll(scope.collection, where, READ, start, vectors=True, keys=WHOLE)
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
        best = [rows[slot] if query.vectors_back else replace(rows[slot], vector=None) for slot, _ in ranked]
        return self._fill(hits, best, [measured for _, measured in ranked])

    async def keyword(self, scope: Scope, query: KeywordQuery) -> Hits:
        where = self._where(scope, query.plan, None if query.ids is None else self._among(scope, query.ids))
        text = " ".join(dict.fromkeys(tokens(query.text)))
        keys = WHOLE if query.vectors_back else SHOWN
        search = Search(text=text, where=where, limit=min(query.k, MOST), vectors=query.vectors_back, keys=keys)
        (rows,) = await self._all_tied(scope, "dot", [search])
        hits = Hits(coverage="complete", path="full-text index, BM25")  # rows deleted since the last merge count in it
        return self._fill(hits, rows, [row.score or 0.0 for row in rows])


def _width(spec: CollectionSpec) -> int:
    """Of a search that names none: of 20,000 random rows of 64 numbers 256 found .99 of the true ten nearest, 64 found .82."""
    return max(256, spec.index.ef_construction) if isinstance(spec.index, HNSW) else 256


def _tied(metric: Metric, last: Row, beyond: Row) -> bool:
    return convert.score(metric, beyond.score) >= tie_floor(convert.score(metric, last.score))


def _points(scope: Scope, ids: Sequence[str]) -> dict[str, str]:
    """The ids by their points."""
    return dict(zip(convert.point_ids(ids, scope.tenant), ids, strict=True))


def _conflict(ids: Sequence[str], there: set[str]) -> AlreadyExists:
    named = [id for id in ids if id in there]  # noqa: A001
    return AlreadyExists(f"{len(named)} of the ids exist, the first is {named[0]!r}; nothing was written", ids=named)


def _all(*conditions: Condition) -> Condition:
    joined = both(*conditions)
    assert joined is not None
    return joined


# --------------------------------------------------------------------------------------------- the way in


async def open_qdrant(target: Target, runtime: Runtime) -> Adapter:
    """Open what a URL names: a directory, one of our own for `qdrant+memory://`, or a server."""
    options = target.options if target.options is not None else QdrantOptions()
    if target.host:
        from vectorkit_qdrant.client import Client
        from vectorkit_qdrant.server import Server

        client = Client(target, options, runtime)
        try:
            await client.open()
        except BaseException:
            await runtime.finish(client.close())
            raise
        capability = replace(CAPABILITY, read_only=True, adopt=True, deadline=True, consistency=_consistency(options))
        return QdrantAdapter(Server(client, options, runtime), options, runtime, capability, read_only=target.read_only)
    if target.read_only:
        raise Unsupported("qdrant has one owner for a directory, and no read_only=True beside it")
    from vectorkit_qdrant.edge import open_edge

    if target.scheme == "qdrant+memory" and target.path:
        raise ConfigError(
            "qdrant+memory:// is private to its handle and has no name; for a directory write qdrant:///path"
        )
    path = target.path
    engine = await runtime.offload(lambda: open_edge(path, target.shown, options, runtime))
    return QdrantAdapter(engine, options, runtime, replace(CAPABILITY, durable=bool(path)))


def _consistency(options: QdrantOptions) -> Literal["read_your_writes", "eventual"]:
    """With replicas that need not confirm a write, a read may ask one that has not seen it."""
    replicas = options.replication_factor or 1
    confirmed = options.write_consistency_factor or 1
    asked = options.read_consistency
    if replicas <= confirmed or asked == "all":
        return "read_your_writes"
    if asked in ("majority", "quorum"):
        asked = replicas // 2 + 1
    return "read_your_writes" if isinstance(asked, int) and asked + confirmed > replicas else "eventual"
