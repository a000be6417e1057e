"""The embedded engine as an Adapter: `local://` here, `faiss://` and `hnswlib://` by handing in what makes their index.

Work that can block is offloaded, so one body serves both colours.
"""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

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
from vectorkit.errors import Closed, NotFound, Unsupported
from vectorkit.filters import And, AnyLeaf, Filter, Node, Not, Or, fold
from vectorkit.local.adopt import Source, adopt
from vectorkit.local.ann import IndexMaker
from vectorkit.local.home import Home
from vectorkit.local.options import LocalOptions
from vectorkit.local.rows import create_rows
from vectorkit.local.shelf import Shelf
from vectorkit.runtime import Runtime
from vectorkit.types import Batch, CollectionSpec, Cursor, Hits, Page, Record, Stats

T = TypeVar("T")

CAPABILITY = Capability(
    store="local",
    durable=True,
    exact=True,
    keyword=True,
    keyword_statistics="tenant",
    insert="atomic",
    update="atomic",
    consistency="read_your_writes",
    expiry=True,
    read_only=True,
    deadline=False,
    ef_search=False,
    indexes=frozenset({"flat"}),
    pushdown=frozenset(
        {"$eq", "$gt", "$gte", "$lt", "$lte", "$in", "$contains_any", "$contains_all", "$startswith", "$exists"}
    ),
)


def no_index(spec: CollectionSpec) -> None:
    """`local://` has no approximate index: every search is exact."""


class LocalAdapter:
    """A directory of collections. Raises Closed in a process forked from the one that opened it."""

    def __init__(
        self,
        home: Home,
        runtime: Runtime,
        *,
        capability: Capability,
        make_index: IndexMaker,
        options: LocalOptions,
        check: Callable[[CollectionSpec], None],
        source: Source | None,
    ) -> None:
        self.capability = capability
        self._home = home
        self._runtime = runtime
        self._make_index = make_index
        self._options = options
        self._check = check
        self._source = source
        self._shelves: dict[str, Shelf] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False

    @property
    def native(self) -> Path:
        """The directory."""
        return self._home.path

    def plan(self, spec: CollectionSpec, where: Node) -> Plan:
        declared = spec.fields

        def leaf(found: AnyLeaf, negated: bool) -> tuple[Filter, bool] | None:
            if found.field not in declared:
                return None
            return (Not(found) if negated else found), True

        def join(how: Literal["and", "or"], parts: list[Filter]) -> Filter:
            return And(parts) if how == "and" else Or(parts)

        folded = fold(where, leaf, join)
        return Plan(where, *folded)

    def _ours(self) -> None:
        if self._closed:
            raise Closed(f"{self._home.shown} was closed; connect again")
        if os.getpid() != self._pid:
            raise Closed(f"{self._home.shown} was opened before this process was forked; connect again in the child")

    def _writable(self) -> None:
        self._ours()
        if self._home.read_only:
            raise Unsupported(f"{self._home.shown} was opened with read_only=True; connect without it to write")

    def _shelf(self, scope: Scope) -> Shelf:
        self._ours()
        if self._home.read_only:
            self._let_go_of_dropped()
        shelf = self._shelves.get(scope.collection)
        return self._open_shelf(scope.collection) if shelf is None else shelf

    def _on(self, scope: Scope, act: Callable[[Shelf], T]) -> T:
        """Act on a shelf; one that is dropped meanwhile is not found, whatever it was closed under."""
        shelf = self._shelf(scope)
        try:
            return act(shelf)
        except Closed:
            if shelf.dropped:
                raise NotFound(f"{self._home.shown}: {scope.collection.rpartition('@')[0]!r} was dropped") from None
            raise

    def _let_go_of_dropped(self) -> None:
        """A read-only handle follows the catalogue: what its writer dropped is gone here too."""
        with self._lock:
            if self._home.changed():
                there = self._home.physicals()
                for physical in [p for p in self._shelves if p not in there]:
                    self._shelves.pop(physical).drop()

    def _open_shelf(self, physical: str) -> Shelf:
        with self._lock:
            shelf = self._shelves.get(physical)
            if shelf is None:
                name = physical.rpartition("@")[0]
                spec = self._home.spec(name)
                if spec.physical != physical:
                    raise NotFound(f"{self._home.shown}: the collection {name!r} was dropped")
                shelf = self._shelves[physical] = self._made_shelf(self._home.folder(physical), spec)
            return shelf

    def _made_shelf(self, folder: Path, spec: CollectionSpec) -> Shelf:
        return Shelf(
            folder,
            spec,
            self._make_index,
            read_only=self._home.read_only,
            shown=f"{self._home.shown} {spec.name!r}",
            cache_mb=self._options.cache_mb,
        )

    async def create(self, spec: CollectionSpec) -> CollectionSpec:
        self._writable()
        self._check(spec)

        def make() -> CollectionSpec:
            with self._lock:
                return self._home.add(spec, lambda made, folder: create_rows(folder / "rows.db", made))

        return await self._runtime.offload(make)

    async def adopt(self, name: str, spec: CollectionSpec, rows: Iterable[Record] | None) -> CollectionSpec:
        self._writable()
        source = self._source
        if source is None:
            raise Unsupported(
                f"{self.capability.store} keeps no index of another's; a FAISS file is adopted by a faiss:// store"
            )
        self._check(spec)

        return await self._runtime.offload(
            lambda: adopt(self._home, self._lock, spec, source(name, spec, rows), rows, self._made_shelf)
        )

    async def describe(self, name: str) -> CollectionSpec:
        self._ours()
        with self._lock:
            return self._home.spec(name)

    async def names(self) -> list[str]:
        self._ours()
        with self._lock:
            return self._home.names()

    async def drop(self, name: str) -> None:
        self._writable()

        def remove() -> None:
            with self._lock:
                spec = self._home.spec(name)
                shelf = self._shelves.pop(spec.physical, None)
                if shelf is not None:
                    shelf.drop()
                self._home.remove(name, spec.physical)

        await self._runtime.offload(remove)

    async def write(self, scope: Scope, batch: Batch, mode: Mode) -> WriteReport:
        self._writable()
        return await self._runtime.offload(lambda: self._on(scope, lambda shelf: shelf.write(scope, batch, mode)))

    async def update(self, scope: Scope, ids: Sequence[str], change: Change) -> int:
        self._writable()
        return await self._runtime.offload(lambda: self._on(scope, lambda shelf: shelf.update(scope, ids, change)))

    async def get(self, scope: Scope, ids: Sequence[str], *, vectors: bool) -> list[Record]:
        self._ours()
        return await self._runtime.offload(
            lambda: self._on(scope, lambda shelf: shelf.get(scope, ids, vectors=vectors))
        )

    async def query(self, scope: Scope, query: Query) -> list[Hits]:
        self._ours()
        return await self._runtime.offload(lambda: self._on(scope, lambda shelf: shelf.query(scope, query)))

    async def keyword(self, scope: Scope, query: KeywordQuery) -> Hits:
        self._ours()
        return await self._runtime.offload(lambda: self._on(scope, lambda shelf: shelf.keyword(scope, query)))

    async def delete(self, scope: Scope, selector: Selector) -> int:
        self._writable()
        return await self._runtime.offload(lambda: self._on(scope, lambda shelf: shelf.delete(scope, selector)))

    async def count(self, scope: Scope, plan: Plan | None) -> int:
        self._ours()
        return await self._runtime.offload(lambda: self._on(scope, lambda shelf: shelf.count(scope, plan)))

    async def page(self, scope: Scope, plan: Plan | None, cursor: Cursor | None, *, limit: int, vectors: bool) -> Page:
        self._ours()
        return await self._runtime.offload(
            lambda: self._on(scope, lambda shelf: shelf.page(scope, plan, cursor, limit=limit, vectors=vectors))
        )

    async def stats(self, scope: Scope) -> Stats:
        self._ours()
        return await self._runtime.offload(lambda: self._on(scope, lambda shelf: shelf.stats(scope)))

    async def optimize(self, name: str) -> None:
        self._writable()
        await self._runtime.offload(lambda: self._on(Scope(collection=name), lambda shelf: shelf.optimize()))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if os.getpid() != self._pid:
            return
        with self._lock:
            for shelf in self._shelves.values():
                shelf.close()
        self._home.close()


def _any(spec: CollectionSpec) -> None:
    """`local://` makes any collection: an index is advice, and exact search needs none."""


async def open_local(
    target: Target,
    runtime: Runtime,
    *,
    store: str = "local",
    indexes: frozenset[str] = frozenset({"flat"}),
    make_index: IndexMaker = no_index,
    check: Callable[[CollectionSpec], None] = _any,
    source: Source | None = None,
) -> LocalAdapter:
    """The embedded engine over a directory; `make_index` plugs in an ANN library, `check` refuses what it cannot build,
    `source` reads what can be adopted."""
    options = target.options if target.options is not None else LocalOptions()
    home = await runtime.offload(
        lambda: Home(Path(target.path), read_only=target.read_only, shown=target.shown, options=options)
    )
    capability = replace(
        CAPABILITY, store=store, indexes=indexes, ef_search=indexes != {"flat"}, adopt=source is not None
    )
    return LocalAdapter(
        home, runtime, capability=capability, make_index=make_index, options=options, check=check, source=source
    )


async def _open(target: Target, runtime: Runtime) -> LocalAdapter:
    return await open_local(target, runtime)


BACKEND = Backend(store="local", open=_open, place="directory", options=LocalOptions)
