"""The contract kept once, for every store: `Checked` stands between the faces and every adapter.

It resolves names, validates whole batches, plans filters, re-checks what a store could not decide exactly, refills until
min(k, matching), and orders. Adapters return candidates.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from vectorkit.adapter import Adapter, Capability, Change, KeywordQuery, Mode, Plan, Query, Scope, Selector, WriteReport
from vectorkit.codec import clean_metadata, to_micros
from vectorkit.errors import (
    AlreadyExists,
    DeadlineExceeded,
    InvalidArgument,
    InvalidRecord,
    NotFound,
    PartialFailure,
    Unsupported,
    VectorkitError,
)
from vectorkit.filters import EVERY_ROW, NO_ROW, Node, as_node, fit, leaves, push_not, to_text
from vectorkit.ranking import sort_hits
from vectorkit.runtime import Runtime, heavy
from vectorkit.types import Batch, Clause, CollectionSpec, Cursor, Explanation, Hits, Page, Record, Stats
from vectorkit.validate import check_batch, check_declared, check_k, check_queries

T = TypeVar("T")
PAGE = 1_000
IDS = 10_000


@dataclass(slots=True)
class _Trace:
    """What a query cost, for explain."""

    round_trips: int = 0
    rows: int = 0


_NO_TRACE = _Trace()


class Checked:
    """An Adapter over an Adapter. Above it a Plan is only its `where` and a Scope names the logical collection."""

    def __init__(
        self, adapter: Adapter, runtime: Runtime, *, clock: Callable[[], datetime], residual_limit: int = 100_000
    ) -> None:
        self.adapter = adapter
        self._runtime = runtime
        self.capability: Capability = adapter.capability
        self.residual_limit = residual_limit
        self._clock = clock
        self._specs: dict[str, CollectionSpec] = {}
        self._plain: dict[str, tuple[CollectionSpec, Scope]] = {}

    @property
    def native(self) -> Any:
        return self.adapter.native

    # ------------------------------------------------------------------------------------- names

    async def _open(self, scope: Scope) -> tuple[CollectionSpec, Scope]:
        spec = self._specs.get(scope.collection)
        if spec is None:
            spec = self._specs[scope.collection] = await self.adapter.describe(scope.collection)
        now = to_micros(self._clock()) if spec.expiry else None
        concrete = Scope(
            collection=spec.physical,
            namespace=scope.namespace,
            tenant=scope.tenant,
            now=now,
            more=scope.more,
            wait=scope.wait,
            most=self.residual_limit,
        )
        if now is None and not scope.namespace and not scope.tenant and not scope.more and scope.wait is None:
            self._plain[scope.collection] = spec, concrete
        return spec, concrete

    def _forget(self, name: str) -> bool:
        """Look the name up afresh next time; whether it had been remembered."""
        self._plain.pop(name, None)
        return self._specs.pop(name, None) is not None

    async def _within(self, scope: Scope, act: Callable[[CollectionSpec, Scope], Awaitable[T]]) -> T:
        """Act on the physical collection that the name means now; what was remembered is looked up again once."""
        remembered = scope.collection in self._specs
        try:
            return await act(*await self._open(scope))
        except NotFound:
            self._forget(scope.collection)
            if not remembered:
                raise
        return await act(*await self._open(scope))

    def plan(self, spec: CollectionSpec, where: Node) -> Plan:
        """The adapter's plan of a fitted filter."""
        fitted = fit(push_not(where), spec.fields)
        if fitted in (EVERY_ROW, NO_ROW):  # a set would hash the whole filter
            return Plan(fitted, None, exact=True)
        return self.adapter.plan(spec, fitted)

    def _plan(self, spec: CollectionSpec, plan: Plan | None) -> Plan | None:
        """The plan for a filter, None where it holds for every row."""
        if plan is None:
            return None
        planned = self.plan(spec, plan.where)
        return None if planned.where == EVERY_ROW else planned

    async def create(self, spec: CollectionSpec) -> CollectionSpec:
        self._check_offered(spec)
        return self._remember(await self.adapter.create(spec))

    async def adopt(self, name: str, spec: CollectionSpec, rows: Iterable[Record] | None) -> CollectionSpec:
        self._check_offered(spec)
        return self._remember(await self.adapter.adopt(name, spec, rows))

    def _remember(self, made: CollectionSpec) -> CollectionSpec:
        self._forget(made.name)
        self._specs[made.name] = made
        return made

    def _check_offered(self, spec: CollectionSpec) -> None:
        """Refuse what the store cannot keep for any collection. Raises Unsupported."""
        store = self.capability.store
        if spec.tenancy is not None and not self.capability.tenancy:
            raise Unsupported(
                f"{store} has no tenancy in this version (asked for {spec.tenancy!r}); make a collection per tenant"
            )
        if spec.expiry and not self.capability.expiry:
            raise Unsupported(
                f"{store} cannot expire rows; create {spec.name!r} with expiry=False and delete by a date field"
            )
        limit = self.capability.max_dimension
        if limit is not None and spec.dimension > limit:
            raise Unsupported(
                f"{store} holds vectors of up to {limit} numbers, asked for {spec.dimension}; reduce the dimension"
            )

    async def describe(self, name: str) -> CollectionSpec:
        self._forget(name)
        spec = self._specs[name] = await self.adapter.describe(name)
        return spec

    async def names(self) -> list[str]:
        return sorted(await self.adapter.names())

    async def drop(self, name: str) -> None:
        self._forget(name)
        await self.adapter.drop(name)

    # ------------------------------------------------------------------------------------- writes

    async def write(self, scope: Scope, batch: Batch, mode: Mode) -> WriteReport:
        if mode != "upsert" and self.capability.insert == "none":
            raise Unsupported(f"{self.capability.store} cannot insert without overwriting; use upsert")

        async def act(spec: CollectionSpec, concrete: Scope) -> WriteReport:
            checked = await heavy(self._runtime, len(batch), lambda: check_batch(spec, batch))
            limit = self.capability.max_rows_per_write
            if limit is None or len(checked) <= limit:
                return await self.adapter.write(concrete, checked, mode)
            return await self._write_parts(concrete, checked, mode, limit)

        return await self._within(scope, act)

    async def _write_parts(self, scope: Scope, batch: Batch, mode: Mode, limit: int) -> WriteReport:
        written = skipped = 0
        if mode == "insert":  # which with one conflict writes nothing: all ids are looked for first
            found: set[str] = set()
            for start in range(0, len(batch), limit):
                there = await self.adapter.get(scope, batch.ids[start : start + limit], vectors=False)
                found.update(record.id for record in there)
            if found:
                ids = [id for id in batch.ids if id in found]  # noqa: A001
                raise AlreadyExists(
                    f"{len(ids)} of the ids exist, the first is {ids[0]!r}; nothing was written", ids=ids
                )
        for start in range(0, len(batch), limit):
            try:
                more = scope.more or start + limit < len(batch)
                report = await self.adapter.write(replace(scope, more=more), _slice(batch, start, start + limit), mode)
            except VectorkitError as error:
                if isinstance(error, DeadlineExceeded) and error.landed:
                    raise
                failed = batch.ids[start:]
                if isinstance(error, PartialFailure):  # of a part that was several requests
                    written += error.written
                    failed = [*error.failed, *batch.ids[start + limit :]]
                elif not written + skipped:
                    raise
                raise PartialFailure(
                    f"{written} rows were written, {len(failed)} were not: {error}", written=written, failed=failed
                ) from error
            written += report.written
            skipped += report.skipped
        return WriteReport(written=written, skipped=skipped)

    async def update(self, scope: Scope, ids: Sequence[str], change: Change) -> int:
        return await self._within(scope, lambda spec, concrete: self._update(spec, concrete, ids, change))

    async def _update(self, spec: CollectionSpec, scope: Scope, ids: Sequence[str], change: Change) -> int:
        checked = self._check_change(spec, change)
        touched = 0
        for start in range(0, len(ids), IDS):
            part = replace(scope, more=True) if start + IDS < len(ids) else scope
            try:
                touched += await self.adapter.update(part, ids[start : start + IDS], checked)
            except VectorkitError as error:
                if (raised := _in_parts(error, touched, ids[start:], IDS)) is error:
                    raise
                raise raised from error
        return touched

    async def update_where(self, scope: Scope, where: Node, change: Change) -> int:
        """Update the rows a filter matches: their ids are read, then updated."""

        async def act(spec: CollectionSpec, concrete: Scope) -> int:
            self._check_change(spec, change)
            plan = self._plan(spec, Plan(where))
            ids = await self._matching_ids(concrete, plan, _NO_TRACE, limited=plan is not None and not plan.exact)
            return await self._update(spec, concrete, ids, replace(change, where=where))

        return await self._within(scope, act)

    def _check_change(self, spec: CollectionSpec, change: Change) -> Change:
        if self.capability.update == "none":
            raise Unsupported(f"{self.capability.store} cannot update metadata in place; get the rows and upsert them")
        clean = clean_metadata(change.set)
        if spec.fields:
            try:
                check_declared(spec, [clean])
            except InvalidRecord as error:
                raise InvalidRecord(error.detail, field=error.field) from None
        return replace(change, set=clean)

    async def delete(self, scope: Scope, selector: Selector) -> int:
        async def act(spec: CollectionSpec, concrete: Scope) -> int:
            if selector.ids is not None:
                return await self._delete_ids(concrete, selector.ids)
            if selector.everything or selector.plan is None:
                return await self.adapter.delete(concrete, Selector(everything=True))
            plan = self._plan(spec, selector.plan)
            if plan is None:
                return await self.adapter.delete(concrete, Selector(everything=True))
            if plan.where == NO_ROW:
                return 0
            if plan.exact:
                return await self.adapter.delete(concrete, Selector(plan=plan))
            gone = 0
            while ids := await self._matching_ids(concrete, plan, _NO_TRACE, limited=True):
                deleted = await self._delete_ids(concrete, ids, plan)
                gone += deleted
                if not deleted or self.capability.consistency == "eventual":  # which may show again what is gone
                    break
            return gone

        return await self._within(scope, act)

    async def _delete_ids(self, scope: Scope, ids: Sequence[str], plan: Plan | None = None) -> int:
        gone = 0
        for start in range(0, len(ids), IDS):
            part = replace(scope, more=True) if start + IDS < len(ids) else scope
            try:
                gone += await self.adapter.delete(part, Selector(ids=ids[start : start + IDS], plan=plan))
            except VectorkitError as error:
                if (raised := _in_parts(error, gone, ids[start:], IDS)) is error:
                    raise
                raise raised from error
        return gone

    # ------------------------------------------------------------------------------------- reads

    async def get(self, scope: Scope, ids: Sequence[str], *, vectors: bool) -> list[Record]:
        async def act(_: CollectionSpec, concrete: Scope) -> list[Record]:
            found: list[Record] = []
            for start in range(0, len(ids), IDS):
                found += await self.adapter.get(concrete, ids[start : start + IDS], vectors=vectors)
            return found

        return await self._within(scope, act)

    async def query(self, scope: Scope, query: Query) -> list[Hits]:
        known = self._plain.get(scope.collection)
        if known is not None and not scope.namespace and not scope.tenant:  # the common case, with nothing to work out
            try:
                return await self._query(*known, query, _NO_TRACE)
            except NotFound:
                self._forget(scope.collection)
        return await self._within(scope, lambda spec, concrete: self._query(spec, concrete, query, _NO_TRACE))

    async def _query(self, spec: CollectionSpec, scope: Scope, query: Query, trace: _Trace) -> list[Hits]:
        k = check_k(query.k, self.capability.store, self.capability.max_k)
        check_queries(spec, query.vectors)
        if query.exact and not self.capability.exact:
            raise Unsupported(f"{self.capability.store} has no exact search; leave exact=False")
        if query.plan is None:
            found = await self._ask(scope, query, trace)
        else:
            plan = self._plan(spec, query.plan)
            if plan is not None and plan.where == NO_ROW:
                return [Hits(coverage="exact", path="no row can match") for _ in query.vectors]
            if plan is None or plan.exact:
                found = await self._ask(scope, replace(query, plan=plan), trace)
            else:
                found = await self._refill(scope, query, plan, trace)
        for hits in found:
            sort_hits(hits)
            del hits[k:]
        return found

    async def _ask(self, scope: Scope, query: Query, trace: _Trace) -> list[Hits]:
        """One request; a second, exact one for the vectors that came back short of k without being known complete."""
        found = await self.adapter.query(scope, query)
        if trace is _NO_TRACE and len(found) == 1 and found[0].coverage == "exact":  # the common case
            return found
        if trace is not _NO_TRACE:
            trace.round_trips += 1
            trace.rows += sum(map(len, found))
        short = []
        for at, hits in enumerate(found):
            if hits.coverage != "exact" and (len(hits) < query.k or hits.coverage == "short"):
                short.append(at)
        if not short or query.exact or not self.capability.exact:
            return found
        again = await self._ask(scope, replace(query, vectors=query.vectors[short], exact=True), trace)
        for at, hits in zip(short, again, strict=True):
            found[at] = hits
        return found

    async def _refill(self, scope: Scope, query: Query, plan: Plan, trace: _Trace) -> list[Hits]:
        """A filter that the store could not decide: one widened query, re-checked; for what stays short, the matching
        ids are read by metadata and the query is made among those."""
        wide = max(4 * query.k, query.k + 64)
        if self.capability.max_k is not None:
            wide = min(wide, self.capability.max_k)
        found = await self._ask(scope, replace(query, plan=plan, k=wide), trace)
        matches = plan.where.matches
        short = []
        for at, hits in enumerate(found):
            exhausted = len(hits) < wide and hits.coverage == "exact"
            kept = Hits(
                [hit for hit in hits if matches(hit.metadata)], coverage=hits.coverage, path=hits.path + ", re-checked"
            )
            found[at] = kept
            if len(kept) < query.k and not exhausted:
                short.append(at)
        if not short:
            return found
        ids = await self._matching_ids(scope, plan, trace, limited=True)
        if not ids:
            return [Hits(coverage="exact", path=hits.path) if at in short else hits for at, hits in enumerate(found)]
        again = await self._ask(scope, replace(query, vectors=query.vectors[short], plan=None, ids=ids), trace)
        for at, hits in zip(short, again, strict=True):
            found[at] = Hits(
                [hit for hit in hits if matches(hit.metadata)],
                coverage=hits.coverage,
                path=f"ids by metadata ({len(ids)}), then {hits.path}",
            )
        return found

    async def _matching_ids(self, scope: Scope, plan: Plan | None, trace: _Trace, *, limited: bool) -> list[str]:
        """The ids of all rows a plan's filter holds for. `limited`: refuse past the residual limit of rows read."""
        if plan is not None and plan.where == NO_ROW:
            return []
        ids: list[str] = []
        read = 0
        cursor: Cursor | None = None
        while True:
            page = await self.adapter.page(scope, plan, cursor, limit=PAGE, vectors=False)
            trace.round_trips += 1
            trace.rows += len(page.records)
            read += len(page.records)
            if limited and plan is not None and read > self.residual_limit:
                raise self._too_many(plan)
            if plan is None or plan.exact:
                ids.extend(record.id for record in page.records)
            else:
                ids.extend(record.id for record in page.records if plan.where.matches(record.metadata))
            cursor = page.cursor
            if cursor is None:
                return ids

    def _too_many(self, plan: Plan) -> Unsupported:
        named = sorted({leaf.field for leaf, _ in leaves(plan.where)})
        return Unsupported(
            f"{self.capability.store} cannot decide the filter on {', '.join(map(repr, named))} itself and more than "
            f"{self.residual_limit} rows would be read to re-check it; declare the field in CollectionSpec(fields=…)"
        )

    async def keyword(self, scope: Scope, query: KeywordQuery) -> Hits:
        if not self.capability.keyword:
            raise Unsupported(f"{self.capability.store} has no keyword search; query by vector")

        async def act(spec: CollectionSpec, concrete: Scope) -> Hits:
            k = check_k(query.k, self.capability.store, self.capability.max_k)
            if not spec.text:
                raise Unsupported(
                    f"{spec.name!r} on {self.capability.store} was made with text=False and has no keyword index; "
                    "create it with text=True"
                )
            plan = self._plan(spec, query.plan)
            if (plan is not None and plan.where == NO_ROW) or not query.words:
                return Hits(coverage="exact", path="no row can match")
            if plan is None or plan.exact:
                hits = await self.adapter.keyword(concrete, replace(query, plan=plan))
            else:
                hits = await self._refill_keyword(concrete, query, plan)
            sort_hits(hits)
            del hits[k:]
            return hits

        return await self._within(scope, act)

    async def _refill_keyword(self, scope: Scope, query: KeywordQuery, plan: Plan) -> Hits:
        wide = max(4 * query.k, query.k + 64)
        if self.capability.max_k is not None:
            wide = min(wide, self.capability.max_k)
        hits = await self.adapter.keyword(scope, replace(query, plan=plan, k=wide))
        kept = Hits([hit for hit in hits if plan.where.matches(hit.metadata)], coverage=hits.coverage, path=hits.path)
        if len(kept) >= query.k or len(hits) < wide:
            return kept
        ids = await self._matching_ids(scope, plan, _NO_TRACE, limited=True)
        hits = await self.adapter.keyword(scope, replace(query, plan=None, ids=ids)) if ids else Hits()
        return Hits([hit for hit in hits if plan.where.matches(hit.metadata)], coverage=hits.coverage, path=hits.path)

    async def count(self, scope: Scope, plan: Plan | None) -> int:
        async def act(spec: CollectionSpec, concrete: Scope) -> int:
            planned = self._plan(spec, plan)
            if planned is not None and planned.where == NO_ROW:
                return 0
            if planned is None or planned.exact:
                return await self.adapter.count(concrete, planned)
            return len(await self._matching_ids(concrete, planned, _NO_TRACE, limited=True))

        return await self._within(scope, act)

    async def page(self, scope: Scope, plan: Plan | None, cursor: Cursor | None, *, limit: int, vectors: bool) -> Page:
        async def act(spec: CollectionSpec, concrete: Scope) -> Page:
            planned = self._plan(spec, plan)
            mark = (concrete.collection, concrete.namespace, concrete.tenant, planned and planned.where.key())
            if cursor is not None and cursor.scope != mark:
                raise InvalidArgument("a scan cursor is good only for the collection, tenant and filter it came from")
            if planned is not None and planned.where == NO_ROW:
                return Page([], None)
            inner = None if cursor is None else cursor.position
            page = await self.adapter.page(concrete, planned, inner, limit=limit, vectors=vectors)
            records = page.records
            if planned is not None and not planned.exact:
                records = [record for record in records if planned.where.matches(record.metadata)]
            return Page(records, None if page.cursor is None else Cursor(mark, page.cursor))

        return await self._within(scope, act)

    async def stats(self, scope: Scope) -> Stats:
        return await self._within(scope, lambda _, concrete: self.adapter.stats(concrete))

    async def optimize(self, name: str) -> None:
        await self._within(Scope(collection=name), lambda spec, _: self.adapter.optimize(spec.physical))

    async def close(self) -> None:
        await self.adapter.close()

    # ------------------------------------------------------------------------------------- explain

    async def explain(self, scope: Scope, query: Query) -> Explanation:
        """Run one query and tell how it was answered."""

        async def act(spec: CollectionSpec, concrete: Scope) -> Explanation:
            trace = _Trace()
            hits = (await self._query(spec, concrete, query, trace))[0]
            return Explanation(
                clauses=[] if query.plan is None else list(self._clauses(spec, query.plan.where)),
                path=hits.path,
                rows_fetched=trace.rows,
                round_trips=trace.round_trips,
                coverage=hits.coverage,
                returned=len(hits),
            )

        return await self._within(scope, act)

    def _clauses(self, spec: CollectionSpec, where: Node) -> Iterable[Clause]:
        """Each leaf planned by itself: what the store decides, narrows, or leaves to the re-check."""
        for leaf, negated in leaves(push_not(where)):
            node = as_node(~leaf) if negated else leaf
            plan = self.plan(spec, node)
            handling = "pushed" if plan.exact else "residual" if plan.native is None else "superset"
            yield Clause(to_text(node), handling)  # type: ignore[arg-type]


def _in_parts(error: VectorkitError, done: int, left: Sequence[str], part: int) -> VectorkitError:
    """The error of a call that was several of the adapter's: how many rows those before it took, and the ids that are left."""
    if isinstance(error, DeadlineExceeded) and error.landed:
        return error
    if isinstance(error, PartialFailure):
        return PartialFailure(str(error), written=done + error.written, failed=[*error.failed, *left[part:]])
    if not done:
        return error
    return PartialFailure(f"{done} rows were done before this failed: {error}", written=done, failed=left)


def _slice(batch: Batch, start: int, stop: int) -> Batch:
    def cut(column: Sequence[Any] | None) -> Sequence[Any] | None:
        return None if column is None else column[start:stop]

    return Batch(
        batch.ids[start:stop], batch.vectors[start:stop], cut(batch.texts), cut(batch.metadata), cut(batch.expires_at)
    )
