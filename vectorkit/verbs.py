"""What every verb does, once, as `async def`; `store.py` and `aio.py` put a face of either colour on it.

It turns what a caller may write into the protocol's values. What a store must answer for is in `checked.py`.
"""

from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Literal

from vectorkit.adapter import Capability, Change, KeywordQuery, Mode, Plan, Query, Scope, Selector
from vectorkit.checked import PAGE, Checked
from vectorkit.codec import Metadata, bad_text, clean_text
from vectorkit.errors import (
    AlreadyExists,
    Closed,
    DeadlineExceeded,
    DimensionMismatch,
    InvalidArgument,
    InvalidRecord,
    NotFound,
    PartialFailure,
    SpecMismatch,
    Unsupported,
    VectorkitError,
)
from vectorkit.filters import EVERY_ROW, Filter, coerce
from vectorkit.retrieval.fusion import RRF, Fusion, fuse_hits
from vectorkit.runtime import Runtime, heavy
from vectorkit.types import (
    Batch,
    CollectionSpec,
    Cursor,
    Explanation,
    Hits,
    Page,
    Record,
    Stats,
    WriteResult,
    check_name,
)
from vectorkit.validate import as_queries, check_ids, check_k, check_ttl
from vectorkit.words import split_words

CHUNK = 10_000
Where = Filter | Mapping[str, Any] | None


class StoreVerbs:
    """An open store: its layers, its runtime, and whether it is closed."""

    def __init__(self, top: Checked, runtime: Runtime, *, clock: Callable[[], datetime], shown: str) -> None:
        self.top = top
        self.runtime = runtime
        self.clock = clock
        self.shown = shown
        self.closed = False

    @property
    def capability(self) -> Capability:
        return self.top.capability

    def check_open(self) -> None:
        if self.closed:
            raise Closed(f"the store {self.shown} was closed; connect again")

    async def create(self, spec: CollectionSpec) -> "CollectionVerbs":
        self.check_open()
        _check_spec(spec)
        return CollectionVerbs(self, await self.top.create(spec))

    async def adopt(self, name: str, spec: CollectionSpec, rows: Iterable[Record] | None) -> "CollectionVerbs":
        self.check_open()
        _check_spec(spec)
        if not isinstance(name, str) or not name or bad_text(name):
            raise InvalidArgument(
                f"what to adopt is named by a non-empty string without NUL or surrogates, got {name!r}"
            )
        return CollectionVerbs(self, await self.top.adopt(name, spec, rows))

    async def open(self, name: str) -> "CollectionVerbs":
        self.check_open()
        return CollectionVerbs(self, await self.top.describe(check_name(name)))

    async def ensure(self, spec: CollectionSpec) -> "CollectionVerbs":
        self.check_open()
        _check_spec(spec)
        try:
            found = await self.top.describe(spec.name)
        except NotFound:
            try:
                return CollectionVerbs(self, await self.top.create(spec))
            except AlreadyExists:  # somebody else made it between the two calls
                found = await self.top.describe(spec.name)
        if differences := found.differences(spec):
            told = "; ".join(f"{part} is {here!r}, asked for {asked!r}" for part, (here, asked) in differences.items())
            raise SpecMismatch(f"{spec.name!r} exists with another spec: {told}", differences=differences)
        return CollectionVerbs(self, found)

    async def names(self) -> list[str]:
        self.check_open()
        return await self.top.names()

    async def drop(self, name: str) -> None:
        self.check_open()
        await self.top.drop(check_name(name))

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            await self.top.close()
            await self.runtime.close()


def _check_spec(spec: CollectionSpec) -> None:
    if not isinstance(spec, CollectionSpec):
        raise InvalidArgument(f"expected a CollectionSpec, got {type(spec).__name__}")


class CollectionVerbs:
    """The data verbs of one collection."""

    def __init__(self, store: StoreVerbs, spec: CollectionSpec) -> None:
        self.store = store
        self.spec = CollectionSpec.from_json(spec.to_json())  # the caller's own: the store keeps another
        self._top = store.top
        self._scope = Scope(collection=spec.name)

    def _plan(self, where: Where) -> Plan | None:
        node = coerce(where)
        return None if node is None else Plan(node)

    # ------------------------------------------------------------------------------------- writes

    async def upsert(self, records: Any, *, ttl: timedelta | float | None, wait: float | None) -> WriteResult:
        _check_wait(wait)
        return await self._write(records, "upsert", ttl, wait)

    async def insert(self, records: Any, *, on_conflict: Literal["fail", "skip"]) -> WriteResult:
        if on_conflict not in ("fail", "skip"):
            raise InvalidArgument(f'on_conflict must be "fail" or "skip", got {on_conflict!r}')
        return await self._write(records, "insert" if on_conflict == "fail" else "skip", None)

    async def _write(
        self, records: Any, mode: Mode, ttl: timedelta | float | None, wait: float | None = None
    ) -> WriteResult:
        self.store.check_open()
        lifetime = check_ttl(ttl)
        if lifetime is not None and not self.spec.expiry:
            raise InvalidArgument(f"ttl is set, and {self.spec.name!r} was made with expiry=False")
        if isinstance(records, Batch):
            return await self._send(records, mode, lifetime, wait)
        if isinstance(records, list | tuple):
            return await self._send(await self._batch(records), mode, lifetime, wait)
        if isinstance(records, AsyncIterable):
            return await self._write_async(records, mode, lifetime, wait)
        if isinstance(records, str | bytes | Mapping | Record) or not isinstance(records, Iterable):
            raise InvalidArgument(f"records must be an iterable of Record, or a Batch; got {type(records).__name__}")
        stream = _Stream(wait)
        rows: Iterator[Any] = iter(records)
        chunk = list(islice(rows, CHUNK))
        while chunk:
            first = list(islice(rows, 1)) if len(chunk) == CHUNK else []  # one ahead, to know whether this is the last
            await stream.send(self, chunk, mode, lifetime, more=bool(first))
            chunk = first + list(islice(rows, CHUNK - 1)) if first else []
        return stream.done

    async def _write_async(
        self, records: AsyncIterable[Any], mode: Mode, lifetime: timedelta | None, wait: float | None
    ) -> WriteResult:
        stream = _Stream(wait)
        chunk: list[Any] = []
        async for record in records:
            if len(chunk) == CHUNK:
                await stream.send(self, chunk, mode, lifetime, more=True)
                chunk = []
            chunk.append(record)
        if chunk:
            await stream.send(self, chunk, mode, lifetime, more=False)
        return stream.done

    async def _batch(self, records: Sequence[Record]) -> Batch:
        dimension = self.spec.dimension
        return await heavy(self.store.runtime, len(records), lambda: Batch.of(records, dimension=dimension))

    async def _send(
        self, batch: Batch, mode: Mode, lifetime: timedelta | None, wait: float | None, *, more: bool = False
    ) -> WriteResult:
        if not len(batch):
            return WriteResult(0)
        if lifetime is not None:
            try:
                default = self.store.clock() + lifetime
            except OverflowError:
                raise InvalidArgument(
                    f"ttl={lifetime} ends after the year 9999; leave it out for rows that stay"
                ) from None
            given = batch.expires_at or [None] * len(batch)
            expires = [default if value is None else value for value in given]
            batch = Batch(batch.ids, batch.vectors, batch.texts, batch.metadata, expires)
        scope = self._scope if wait is None and not more else replace(self._scope, more=more, wait=wait)
        report = await self._top.write(scope, batch, mode)
        return WriteResult(report.written, report.skipped)

    async def update(
        self, *, ids: Sequence[str] | None, where: Where, set: Metadata | None, unset: Sequence[str] | None
    ) -> int:
        self.store.check_open()
        change = _check_change(set, unset)
        if (ids is None) == (where is None):
            raise InvalidArgument("update takes exactly one of ids= and where=")
        if ids is not None:
            return await self._top.update(self._scope, check_ids(ids), change)
        node = coerce(where)
        assert node is not None
        return await self._top.update_where(self._scope, node, change)

    async def delete(self, *, ids: Sequence[str] | None, where: Where, everything: bool) -> int:
        self.store.check_open()
        if not isinstance(everything, bool):
            raise InvalidArgument(f"everything must be True or False, got {everything!r}")
        if (ids is not None) + (where is not None) + everything != 1:
            raise InvalidArgument("delete takes exactly one of ids=, where= and everything=True")
        if ids is not None:
            checked = check_ids(ids)
            return await self._top.delete(self._scope, Selector(ids=checked)) if checked else 0
        plan = self._plan(where)
        if plan is not None and plan.where == EVERY_ROW:
            raise InvalidArgument(
                "delete(where=…) with a filter that holds for every row; say everything=True if you mean it"
            )
        return await self._top.delete(self._scope, Selector(plan=plan, everything=everything))

    # ------------------------------------------------------------------------------------- reads

    async def get(self, ids: Sequence[str], *, vectors: bool) -> list[Record | None]:
        self.store.check_open()
        given = ids if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Iterable) else list(ids)
        distinct = check_ids(given)
        flag = _flag("vectors", vectors)
        found = {r.id: r for r in await self._top.get(self._scope, distinct, vectors=flag)} if distinct else {}
        return [found.get(str.__str__(id)) for id in given]  # noqa: A001

    async def query(
        self,
        vector: Any,
        *,
        k: int,
        where: Where,
        vectors: bool,
        exact: bool,
        ef_search: int | None,
        probes: int | None,
    ) -> Hits:
        self.store.check_open()
        query = self._question(as_queries(vector, one=True), k, where, vectors, exact, ef_search, probes)
        return (await self._top.query(self._scope, query))[0]

    async def query_many(
        self,
        vectors: Any,
        *,
        k: int,
        where: Where,
        return_vectors: bool,
        exact: bool,
        ef_search: int | None,
        probes: int | None,
    ) -> list[Hits]:
        self.store.check_open()
        queries = as_queries(vectors, one=False)
        query = self._question(queries, k, where, return_vectors, exact, ef_search, probes)
        if not len(queries):
            check_k(k, self.store.capability.store, self.store.capability.max_k)
            return []
        return await self._top.query(self._scope, query)

    def _question(
        self, queries: Any, k: int, where: Where, vectors: bool, exact: bool, ef_search: int | None, probes: int | None
    ) -> Query:
        for name, width in (("ef_search", ef_search), ("probes", probes)):
            if width is not None and (isinstance(width, bool) or not isinstance(width, int) or width < 1):
                raise InvalidArgument(f"{name} must be an int of at least 1, got {width!r}")
        return Query(
            vectors=queries,
            k=k,
            plan=None if where is None else self._plan(where),
            vectors_back=_flag("vectors", vectors),
            exact=_flag("exact", exact),
            ef_search=ef_search,
            probes=probes,
        )

    async def keyword(self, text: str, *, k: int, where: Where, vectors: bool) -> Hits:
        self.store.check_open()
        checked = _check_query_text(text)
        query = KeywordQuery(
            text=checked,
            words=split_words(checked),
            k=k,
            plan=self._plan(where),
            vectors_back=_flag("vectors", vectors),
        )
        return await self._top.keyword(self._scope, query)

    async def hybrid(
        self,
        text: str,
        vector: Any,
        *,
        k: int,
        where: Where,
        fusion: Fusion | None,
        candidates: int | None,
        vectors: bool,
    ) -> Hits:
        self.store.check_open()
        store = self.store.capability.store
        k = check_k(k, store, self.store.capability.max_k)
        depth = (
            max(k, 100)
            if candidates is None
            else max(k, check_k(candidates, store, self.store.capability.max_k, "candidates"))
        )
        dense, words = await self.store.runtime.gather(
            self.query(vector, k=depth, where=where, vectors=vectors, exact=False, ef_search=None, probes=None),
            self.keyword(text, k=depth, where=where, vectors=vectors),
        )
        return fuse_hits([dense, words], RRF() if fusion is None else fusion, k)

    async def count(self, where: Where) -> int:
        self.store.check_open()
        return await self._top.count(self._scope, self._plan(where))

    async def page(self, where: Where, cursor: Cursor | None, *, vectors: bool, limit: int = PAGE) -> Page:
        self.store.check_open()
        return await self._top.page(
            self._scope, self._plan(where), cursor, limit=limit, vectors=_flag("vectors", vectors)
        )

    async def stats(self) -> Stats:
        self.store.check_open()
        return await self._top.stats(self._scope)

    async def optimize(self) -> None:
        self.store.check_open()
        await self._top.optimize(self.spec.name)

    async def explain(
        self, vector: Any, *, k: int, where: Where, exact: bool, ef_search: int | None, probes: int | None
    ) -> Explanation:
        self.store.check_open()
        query = self._question(as_queries(vector, one=True), k, where, False, exact, ef_search, probes)
        return await self._top.explain(self._scope, query)

    # ------------------------------------------------------------------------------------- tenants

    def no_tenancy(self) -> Unsupported:
        self.store.check_open()
        return Unsupported(
            f"{self.spec.name!r} on {self.store.capability.store} has no tenants: tenancy is not in this version; "
            "make a collection per tenant"
        )


class _Stream:
    """The chunks of an iterator: each is checked and sent whole; a failure tells what had been written before."""

    def __init__(self, wait: float | None) -> None:
        self.done = WriteResult(0)
        self.rows = 0
        self._wait = wait

    async def send(
        self, to: CollectionVerbs, chunk: list[Any], mode: Mode, lifetime: timedelta | None, *, more: bool
    ) -> None:
        try:
            batch = await to._batch(chunk)  # noqa: SLF001
            self.done += await to._send(batch, mode, lifetime, self._wait, more=more)  # noqa: SLF001
        except VectorkitError as error:
            located = _shift(error, self.rows)
            if not self.rows or (isinstance(error, DeadlineExceeded) and error.landed):
                raise
            before = error.written if isinstance(error, PartialFailure) else 0
            failed = error.failed if isinstance(error, PartialFailure) else [getattr(r, "id", None) for r in chunk]
            raise PartialFailure(
                f"{self.done.written + before} rows were written before this failed: {located}",
                written=self.done.written + before,
                failed=[i for i in failed if isinstance(i, str)],
            ) from located
        self.rows += len(chunk)


def _shift(error: VectorkitError, rows: int) -> VectorkitError:
    """The same error with its row counted from the start of the stream."""
    match error:
        case InvalidRecord(row=int(row)):
            return InvalidRecord(error.detail, row=row + rows, field=error.field)
        case DimensionMismatch(row=int(row)):
            return DimensionMismatch(error.detail, expected=error.expected, got=error.got, row=row + rows)
        case _:
            return error


def _check_wait(wait: float | None) -> None:
    if wait is not None and (
        isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait < float("inf")
    ):
        raise InvalidArgument(f"wait must be a number of seconds of at least 0, or None; got {wait!r}")


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{name} must be True or False, got {value!r}")
    return value


def _check_query_text(text: Any) -> str:
    try:
        return clean_text(text, "the query", "text", None)
    except InvalidRecord as error:
        raise InvalidArgument(error.detail) from None


def _check_change(set: Any, unset: Any) -> Change:
    if set is not None and not isinstance(set, Mapping):
        raise InvalidArgument(f"set must be a mapping of metadata, got {type(set).__name__}")
    if unset is not None and (isinstance(unset, str | Mapping) or not isinstance(unset, Iterable)):
        raise InvalidArgument(f"unset must be a list of keys, got {unset!r}")
    removed = list(unset or ())
    for key in removed:
        if not isinstance(key, str) or not key:
            raise InvalidArgument(f"unset must hold non-empty strings, got {key!r}")
    gone = tuple(dict.fromkeys(removed))
    if both := [key for key in gone if key in (set or {})]:
        raise InvalidArgument(f"{both[0]!r} is in both set and unset")
    if not set and not gone:
        raise InvalidArgument("update changes nothing: give set= or unset=")
    return Change(set=dict(set or {}), unset=gone)
