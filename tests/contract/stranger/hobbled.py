"""A third party's store that does everything as badly as an adapter may: `Checked` has to make the contract of it.

It decides few filters, widens others, answers short, unsorted and in small pages, and takes few rows a request.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from vectorkit.adapter import Backend, Change, KeywordQuery, Mode, Plan, Query, Scope, Selector, Target, WriteReport
from vectorkit.errors import Unavailable
from vectorkit.filters import And, AnyLeaf, Compare, ContainsAll, ContainsAny, Eq, Exists, Filter, Node, Not, Or, fold
from vectorkit.memory import CAPABILITY, MemoryAdapter, _Data
from vectorkit.runtime import Runtime
from vectorkit.types import Batch, CollectionSpec, Cursor, Hits, Page, Record, Stats

SHORT = 7
"""Rows that an inexact query gives at most."""
WRITE = 4_000
MAX_K = 20_000


def _leaf(leaf: AnyLeaf, negated: bool, fields: frozenset[str]) -> tuple[Filter, bool] | None:
    """Equality on declared fields is exact, order and lists become "the field is there", the rest is left out."""
    if leaf.field not in fields:
        return None
    match leaf:
        case Eq():
            return (Not(leaf) if negated else leaf), True
        case Compare() | ContainsAny() | ContainsAll() if not negated:
            return Exists(leaf.field), False
        case _:
            return None


def _join(kind: Literal["and", "or"], parts: Sequence[Filter]) -> Filter:
    return And(parts) if kind == "and" else Or(parts)


def _inner(plan: Plan | None) -> Plan | None:
    """The plan as the memory store takes it: the native filter is what is applied, nothing more."""
    return None if plan is None or plan.native is None else Plan(plan.native, plan.native, exact=True)


def _exactly(plan: Plan | None) -> Plan | None:
    assert plan is None or plan.exact, "an adapter was asked to count or delete by a filter it cannot decide"
    return _inner(plan)


def _shuffled(hits: Hits, *, coverage: Any) -> Hits:
    return Hits([*hits[1::2], *reversed(hits[::2])], coverage=coverage, path="hobbled")


class HobbledAdapter:
    """The memory store behind a poor interface."""

    def __init__(self, *, read_only: bool) -> None:
        self.inner = MemoryAdapter(_Data(), read_only=read_only)
        self.capability = replace(
            CAPABILITY,
            store="hobbled",
            pushdown=frozenset({"$eq"}),
            max_k=MAX_K,
            max_rows_per_write=WRITE,
            max_dimension=4_096,
        )
        self.requests = 0

    @property
    def native(self) -> "HobbledAdapter":
        return self

    def plan(self, spec: CollectionSpec, where: Node) -> Plan:
        fields = frozenset(spec.fields)
        folded = fold(where, lambda leaf, negated: _leaf(leaf, negated, fields), _join)
        return Plan(where, *folded)

    async def create(self, spec: CollectionSpec) -> CollectionSpec:
        return await self.inner.create(spec)

    async def adopt(self, name: str, spec: CollectionSpec, rows: Iterable[Record] | None) -> CollectionSpec:
        return await self.inner.adopt(name, spec, rows)

    async def describe(self, name: str) -> CollectionSpec:
        return await self.inner.describe(name)

    async def names(self) -> list[str]:
        return list(reversed(await self.inner.names()))

    async def drop(self, name: str) -> None:
        await self.inner.drop(name)

    async def write(self, scope: Scope, batch: Batch, mode: Mode) -> WriteReport:
        assert len(batch) <= WRITE
        if "poison" in batch.ids:
            raise Unavailable("hobbled swallowed poison")
        return await self.inner.write(scope, batch, mode)

    async def update(self, scope: Scope, ids: Sequence[str], change: Change) -> int:
        return await self.inner.update(scope, ids, change)

    async def get(self, scope: Scope, ids: Sequence[str], *, vectors: bool) -> list[Record]:
        return list(reversed(await self.inner.get(scope, ids, vectors=vectors)))

    async def query(self, scope: Scope, query: Query) -> list[Hits]:
        self.requests += 1
        found = await self.inner.query(scope, replace(query, plan=_inner(query.plan)))
        if query.exact:
            return [_shuffled(hits, coverage="exact") for hits in found]
        return [_shuffled(Hits(hits[:SHORT]), coverage="short" if len(hits) > SHORT else "complete") for hits in found]

    async def keyword(self, scope: Scope, query: KeywordQuery) -> Hits:
        found = await self.inner.keyword(scope, replace(query, plan=_inner(query.plan)))
        return _shuffled(found, coverage="exact")

    async def delete(self, scope: Scope, selector: Selector) -> int:
        return await self.inner.delete(
            scope, replace(selector, plan=selector.plan if selector.ids is not None else _exactly(selector.plan))
        )

    async def count(self, scope: Scope, plan: Plan | None) -> int:
        return await self.inner.count(scope, _exactly(plan))

    async def page(self, scope: Scope, plan: Plan | None, cursor: Cursor | None, *, limit: int, vectors: bool) -> Page:
        return await self.inner.page(scope, _inner(plan), cursor, limit=min(limit, 53), vectors=vectors)

    async def stats(self, scope: Scope) -> Stats:
        return await self.inner.stats(scope)

    async def optimize(self, name: str) -> None:
        await self.inner.optimize(name)

    async def close(self) -> None:
        await self.inner.close()


async def _open(target: Target, runtime: Runtime) -> HobbledAdapter:
    return HobbledAdapter(read_only=target.read_only)


BACKEND = Backend(store="hobbled", open=_open, place="name")
