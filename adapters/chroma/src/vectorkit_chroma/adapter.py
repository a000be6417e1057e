"""Chroma as an Adapter: embedded in a directory that it owns, or a server. Names, lifecycle and errors; rows are in `rows.py`.

Vectors are always passed, so Chroma never embeds and never downloads a model. Both colours use its sync client, the async one
in threads: that is faster than its async client (`bench/chroma.py` prints the ratio).
"""

import json
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

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
    AlreadyExists,
    Closed,
    ConfigError,
    Corrupt,
    InvalidArgument,
    NotFound,
    Unavailable,
    Unsupported,
    VectorkitError,
)
from vectorkit.filters import Node
from vectorkit.layers.sidecar import Sidecar
from vectorkit.local.lock import DirectoryLock
from vectorkit.runtime import Runtime
from vectorkit.types import HNSW, LAYOUT, Batch, CollectionSpec, Cursor, Hits, Page, Record, Stats
from vectorkit_chroma import filters
from vectorkit_chroma.adopt import check_source, copy_rows
from vectorkit_chroma.client import Client, mapped
from vectorkit_chroma.convert import ADOPTING, CONTROL, SPACES, native_name
from vectorkit_chroma.options import ChromaOptions
from vectorkit_chroma.rows import READ, Rows

T = TypeVar("T")
MOST_FIELDS = 1_500  # each is three values of a row
_ADOPTED = re.compile(ADOPTING + r"[0-9a-f]{32}\Z")
_PHYSICAL = re.compile(r".+@[1-9][0-9]{0,18}\Z", re.DOTALL)

CAPABILITY = Capability(
    store="chroma",
    durable=True,
    exact=True,
    keyword=False,
    keyword_statistics=None,
    insert="checked",
    update="read_modify_write",
    consistency="read_your_writes",
    expiry=True,
    read_only=False,
    deadline=False,
    ef_search=True,
    indexes=frozenset({"hnsw"}),
    adopt=True,
    pushdown=frozenset(
        {"$eq", "$gt", "$gte", "$lt", "$lte", "$in", "$contains_any", "$contains_all", "$startswith", "$exists"}
    ),
)


# --------------------------------------------------------------------------------------------- the adapter


class ChromaAdapter:
    """The collections of one Chroma database. Raises Closed in a process forked from the one that opened it."""

    def __init__(
        self, client: Client, target: Target, options: ChromaOptions, runtime: Runtime, lock: DirectoryLock | None
    ) -> None:
        self._client = client
        self._options = options
        self._runtime = runtime
        self._lock = lock
        self._shown = target.shown
        self._read_only = target.read_only
        self._rows: dict[str, Rows] = {}
        self._pid = os.getpid()
        self._closed = False
        self._closing = threading.Lock()
        self._place = {"tenant": options.tenant, "database": options.database}
        batch = client.api.get_max_batch_size()
        self._batch = batch if batch > 0 else 5_461
        self.capability = replace(
            CAPABILITY,
            max_rows_per_write=self._batch,
            read_only=not client.embedded,
            deadline=not client.embedded and options.timeout is not None,
        )

    @property
    def native(self) -> Any:
        """chromadb's ServerAPI, which its own clients are made around; its verbs take tenant= and database=."""
        return self._client.api

    def plan(self, spec: CollectionSpec, where: Node) -> Plan:
        return filters.plan(spec, where)

    # ------------------------------------------------------------------------------------- one call

    def _ours(self) -> None:
        if self._closed:
            raise Closed(f"{self._shown} was closed; connect again")
        if os.getpid() != self._pid:
            raise Closed(f"{self._shown} was opened before this process was forked; connect again in the child")

    def _writable(self) -> None:
        self._ours()
        if self._read_only:
            raise Unsupported(f"{self._shown} was opened with read_only=True; connect without it to write")

    async def _do(self, act: Callable[[], T]) -> T:
        def mapping() -> T:
            with mapped(self._shown, self._options.timeout):
                try:
                    return act()
                except (AttributeError, RuntimeError):  # closed under the call
                    self._ours()
                    raise

        return await self._runtime.offload(mapping)

    async def _on(self, scope: Scope, act: Callable[[Rows], T]) -> T:
        """Act on a physical collection; one that was dropped is not found, and looked up afresh next time."""
        self._ours()
        physical = scope.collection

        def acting() -> T:
            rows = self._rows.get(physical) or self._open_rows(physical)
            try:
                with mapped(self._shown, self._options.timeout):
                    return act(rows)
            except (NotFound, Corrupt, Unsupported, Unavailable) as error:
                if not isinstance(error, NotFound) and not self._gone(rows):
                    raise
                self._rows.pop(physical, None)
                raise NotFound(f"{self._shown}: the collection {rows.spec.name!r} was dropped") from error

        return await self._do(acting)

    def _gone(self, rows: Rows) -> bool:
        """Whether a collection was dropped under a call, which Chroma answers with many other errors than that it is not there."""
        try:
            with mapped(self._shown, self._options.timeout):
                model = self._client.api.get_collection(native_name(rows.spec.physical), **self._place)
        except VectorkitError as error:
            return isinstance(error, NotFound)
        return bool(model.id != rows.native.id)

    async def identity(self, physical: str) -> str:
        """Chroma's UUID of a physical collection. NotFound."""
        return await self._on(Scope(collection=physical), lambda rows: str(rows.native.id))

    # ------------------------------------------------------------------------------------- names

    def _models(self) -> list[Any]:
        """Every collection of the database, ours and others'."""
        return list(self._client.api.list_collections(**self._place))  # in one piece: pages lose what a drop moves up

    def _ours_of(self, models: list[Any], name: str | None = None) -> dict[str, Any]:
        """Those of ours, of one name or of all, by their physical name."""
        found = {}
        for model in models:
            physical = (model.metadata or {}).get("_vk_physical")
            if isinstance(physical, str) and _PHYSICAL.match(physical) and name in {None, physical.rpartition("@")[0]}:
                found[physical] = model
        return found

    def _spec(self, physical: str, metadata: dict[str, Any]) -> CollectionSpec:
        if metadata.get("_vk_layout") != LAYOUT:
            raise Unsupported(
                f"{self._shown}: {physical!r} has layout {metadata.get('_vk_layout')!r}; this version reads layout {LAYOUT}"
            )
        try:
            spec = CollectionSpec.from_json(json.loads(metadata["_vk_spec"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Corrupt(
                f"{self._shown}: the spec of {physical!r} cannot be read ({error}); drop the collection with Chroma's own client"
            ) from error
        if spec.physical != physical:
            raise Corrupt(f"{self._shown}: {physical!r} carries the spec of {spec.physical!r}")
        return spec

    def _published(self, name: str) -> tuple[str, Any] | None:
        """The highest published generation of a name."""
        found = [pair for pair in self._ours_of(self._models(), name).items() if _is_published(pair[1])]
        return max(found, key=lambda pair: _generation(pair[0]), default=None)

    def _open_rows(self, physical: str) -> Rows:
        model = self._client.api.get_collection(native_name(physical), **self._place)
        metadata = model.metadata or {}
        if metadata.get("_vk_physical") != physical:
            raise NotFound(f"{self._shown}: the collection {physical.rpartition('@')[0]!r} was dropped")
        return self._bind(self._spec(physical, metadata), model)

    def _bind(self, spec: CollectionSpec, model: Any) -> Rows:
        known = self._rows.get(spec.physical)
        if known is not None and known.native.id == model.id:
            return known
        rows = self._rows[spec.physical] = self._rows_of(spec, model)
        return rows

    def _rows_of(self, spec: CollectionSpec, model: Any) -> Rows:
        return Rows(
            self._client.collection(model),
            spec,
            self._shown,
            writing=self._client.writing,
            batch=self._batch,
            exact_limit=self._options.exact_limit,
        )

    async def create(self, spec: CollectionSpec) -> CollectionSpec:
        self._writable()
        self._check(spec)
        return await self._do(lambda: self._create(spec))

    def _check(self, spec: CollectionSpec) -> None:
        if len(spec.fields) > MOST_FIELDS:
            raise Unsupported(
                f"chroma takes {MOST_FIELDS} declared fields, asked for {len(spec.fields)}; declare fewer"
            )
        if not isinstance(spec.index, HNSW):  # advice: Chroma's graph is made for these too
            return
        if spec.index.quantization is not None:
            raise Unsupported(
                f"chroma stores float32 only, asked for {spec.index.quantization}; leave quantization=None"
            )

    def _create(self, spec: CollectionSpec) -> CollectionSpec:
        """The name of the next generation is the same for all who make it, so Chroma lets one of them."""
        while True:
            made = self._next(spec)
            model = self._client.api.create_collection(
                native_name(made.physical),
                configuration={"hnsw": self._index(made)},
                metadata=self._labels(made),
                **self._place,
            )
            if self._dropped(spec.name) < made.generation:
                self._bind(made, model)
                return made
            self._client.api.delete_collection(model.name, **self._place)  # made and dropped by another meanwhile

    def _next(self, spec: CollectionSpec) -> CollectionSpec:
        """The spec with the generation that is the next. AlreadyExists."""
        models = self._models()
        there = self._ours_of(models, spec.name)
        if any(map(_is_published, there.values())):
            raise AlreadyExists(f"{self._shown} has a collection {spec.name!r} already")
        generation = max([self._dropped(spec.name), *map(_generation, there)]) + 1
        taken = {model.name for model in models}
        while native_name(f"{spec.name}@{generation}") in taken:  # by somebody else's collection
            generation += 1
        return CollectionSpec.from_json({**spec.to_json(), "generation": generation})

    def _labels(self, spec: CollectionSpec) -> dict[str, Any]:
        document = json.dumps(spec.to_json(), ensure_ascii=False, separators=(",", ":"))
        return {"_vk_layout": LAYOUT, "_vk_physical": spec.physical, "_vk_spec": document, "_vk_state": "published"}

    def _index(self, spec: CollectionSpec) -> dict[str, Any]:
        index = spec.index if isinstance(spec.index, HNSW) else HNSW()
        return {
            "space": SPACES[spec.metric],
            "max_neighbors": index.m,
            "ef_construction": index.ef_construction,
            "ef_search": self._options.ef_search,
        }

    def _control(self) -> Any:
        """The collection that remembers which generations were dropped, so that none is given twice."""
        with suppress(NotFound), mapped(self._shown):
            model = self._client.api.get_collection(CONTROL, **self._place)
            return self._client.collection(model)
        return None

    def _dropped(self, name: str) -> int:
        control = self._control()
        if control is None:
            return 0
        rows = control.get(where={"_vk_name": name}, include=["metadatas"])["metadatas"] or []
        return max((int(str(row["_vk_generation"])) for row in rows), default=0)

    async def describe(self, name: str) -> CollectionSpec:
        self._ours()

        def look() -> CollectionSpec:
            found = self._published(name)
            if found is None:
                raise NotFound(f"{self._shown} has no collection {name!r}")
            physical, model = found
            return self._bind(self._spec(physical, model.metadata), model).spec

        return await self._do(look)

    async def names(self) -> list[str]:
        self._ours()

        def look() -> list[str]:
            ours = self._ours_of(self._models())
            return sorted({physical.rpartition("@")[0] for physical, model in ours.items() if _is_published(model)})

        return await self._do(look)

    async def drop(self, name: str) -> None:
        self._writable()

        def remove() -> None:
            found = self._ours_of(self._models(), name)
            if not any(map(_is_published, found.values())):
                raise NotFound(f"{self._shown} has no collection {name!r}")
            self._remember(name, max(map(_generation, found)))
            gone = 0
            for physical, model in found.items():
                self._rows.pop(physical, None)
                with suppress(NotFound), mapped(self._shown):
                    self._client.api.delete_collection(model.name, **self._place)
                    gone += 1
            if not gone:
                raise NotFound(f"{self._shown} has no collection {name!r}")

        await self._do(remove)

    def _remember(self, name: str, generation: int) -> None:
        """Note the generation as dropped before it is; notes of lower ones then say nothing more."""
        control = self._control()
        if control is None:
            model = self._client.api.create_collection(
                CONTROL, metadata={"_vk_layout": LAYOUT}, get_or_create=True, **self._place
            )
            control = self._client.collection(model)
        note = {"_vk_name": name, "_vk_generation": generation}
        control.upsert(ids=[f"{name}@{generation}"], embeddings=[[1.0]], metadatas=[note])
        control.delete(where={"$and": [{"_vk_name": name}, {"_vk_generation": {"$lt": generation}}]})

    async def adopt(self, name: str, spec: CollectionSpec, rows: Iterable[Record] | None) -> CollectionSpec:
        self._writable()
        self._check(spec)
        if rows is not None:
            raise InvalidArgument("a Chroma collection has its texts and metadata with it; leave rows= out")
        return await self._do(lambda: self._adopt(name, spec))

    def _adopt(self, name: str, spec: CollectionSpec) -> CollectionSpec:
        """Copy into a collection of another name, and publish it by giving it its own, which Chroma lets one do."""
        self._next(spec)
        source = self._client.api.get_collection(name, **self._place)
        check_source(source, spec, self._shown)
        hidden = f"{ADOPTING}{uuid.uuid4().hex}"
        model = self._client.api.create_collection(
            hidden, configuration={"hnsw": self._index(spec)}, metadata={"_vk_layout": LAYOUT}, **self._place
        )
        try:
            rows = self._rows_of(spec, model)
            scope = Scope(collection=hidden)
            copy_rows(self._client.collection(source), spec, lambda batch: rows.write(scope, batch, "upsert"), READ)
            made = self._next(spec)
            self._publish(rows, made)
        except BaseException:
            with suppress(NotFound), mapped(self._shown):
                self._client.api.delete_collection(hidden, **self._place)
            raise
        if self._dropped(spec.name) >= made.generation:  # another's, made and dropped meanwhile, had this number
            self._client.api.delete_collection(native_name(made.physical), **self._place)
            raise NotFound(f"{self._shown}: the collection {spec.name!r} was dropped")
        self._bind(made, self._client.api.get_collection(native_name(made.physical), **self._place))
        return made

    def _publish(self, rows: Rows, made: CollectionSpec) -> None:
        name = native_name(made.physical)
        try:
            with mapped(self._shown, self._options.timeout):
                rows.native.modify(name=name, metadata=self._labels(made))
        except VectorkitError as error:
            with suppress(NotFound), mapped(self._shown, self._options.timeout):
                if self._client.api.get_collection(name, **self._place).id == rows.native.id:
                    return  # it was done, and only the reply was lost
                raise AlreadyExists(f"{self._shown} has a collection {made.name!r} already") from error
            raise

    def sweep(self) -> None:
        """Remove what adoptions that were cut short left: of a directory that nobody else has."""
        for model in self._models():
            if _ADOPTED.match(model.name) and set(model.metadata or {}) == {"_vk_layout"}:
                self._client.api.delete_collection(model.name, **self._place)

    # ------------------------------------------------------------------------------------- rows

    async def write(self, scope: Scope, batch: Batch, mode: Mode) -> WriteReport:
        self._writable()
        return await self._on(scope, lambda rows: rows.write(scope, batch, mode))

    async def update(self, scope: Scope, ids: Sequence[str], change: Change) -> int:
        self._writable()
        return await self._on(scope, lambda rows: rows.update(scope, ids, change))

    async def get(self, scope: Scope, ids: Sequence[str], *, vectors: bool) -> list[Record]:
        return await self._on(scope, lambda rows: rows.get(scope, ids, vectors=vectors))

    async def query(self, scope: Scope, query: Query) -> list[Hits]:
        return await self._on(scope, lambda rows: rows.query(scope, query))

    async def keyword(self, scope: Scope, query: KeywordQuery) -> Hits:
        raise Unsupported(
            "chroma has no keyword search of its own; give ChromaOptions(sidecar=…) a file to keep one in"
        )

    async def delete(self, scope: Scope, selector: Selector) -> int:
        self._writable()
        return await self._on(scope, lambda rows: rows.delete(scope, selector))

    async def count(self, scope: Scope, plan: Plan | None) -> int:
        return await self._on(scope, lambda rows: rows.count(scope, plan))

    async def page(self, scope: Scope, plan: Plan | None, cursor: Cursor | None, *, limit: int, vectors: bool) -> Page:
        return await self._on(scope, lambda rows: rows.page(scope, plan, cursor, limit=limit, vectors=vectors))

    async def stats(self, scope: Scope) -> Stats:
        return await self._on(scope, lambda rows: rows.stats(scope))

    async def optimize(self, name: str) -> None:
        """Chroma keeps its index itself; that the collection is there is all there is to see to."""
        self._writable()
        await self._on(Scope(collection=name), lambda rows: rows.native.count())

    async def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
        if os.getpid() != self._pid:
            return
        self._rows.clear()
        self._client.close()
        if self._lock is not None:
            self._lock.release()


def _is_published(model: Any) -> bool:
    return bool(model.metadata.get("_vk_state") == "published")


def _generation(physical: str) -> int:
    return int(physical.rpartition("@")[2])


# --------------------------------------------------------------------------------------------- the way in


async def open_chroma(target: Target, runtime: Runtime) -> Adapter:
    """Open what a URL names: a directory under its lock, with a keyword side-car, or a server."""
    options = target.options if target.options is not None else ChromaOptions()
    embedded = not target.host
    if embedded and target.scheme != "chroma":
        raise ConfigError(f"{target.scheme}:// names a server, as in {target.scheme}://host:8000")
    if embedded and target.read_only:
        raise Unsupported(
            "chroma has one owner for a directory, and no read_only=True beside it; run a server (`chroma run`)"
        )
    if not embedded and target.path not in {"", "/"}:
        raise ConfigError(f"{target.shown}: a server's URL has no path; the database is ChromaOptions(database=…)")
    if target.read_only and options.sidecar is not None:
        raise Unsupported("chroma's side-car has one owner, so there is no read_only=True with it; leave sidecar= out")
    if embedded and options.sidecar is not None:
        raise InvalidArgument("sidecar is for servers; an embedded store keeps its own")

    def connect() -> ChromaAdapter:
        lock = None
        if embedded:
            folder = Path(target.path)
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise Unavailable(f"{target.shown}: the directory cannot be made: {error.strerror}") from error
            lock = DirectoryLock(folder / "vectorkit.lock", target.shown, options.lock_timeout)
        client = None
        try:
            with mapped(target.shown, options.timeout):
                client = Client(target, options)
                _look(client, target, options)
                adapter = ChromaAdapter(client, target, options, runtime, lock)
                if embedded:
                    adapter.sweep()
                return adapter
        except BaseException:
            if client is not None:
                client.close()
            if lock is not None:
                lock.release()
            raise

    adapter = await runtime.offload(connect)
    words = f"{target.path}/vectorkit-words.db" if embedded else options.sidecar
    if words is None:
        return adapter
    place = (
        f"{options.tenant}/{options.database}" if embedded else f"{target.shown} {options.tenant}/{options.database}"
    )
    try:
        return await Sidecar.open(adapter, Path(words), runtime, shown=target.shown, own_lock=not embedded, place=place)
    except BaseException:
        await adapter.close()
        raise


def _look(client: Client, target: Target, options: ChromaOptions) -> None:
    """Whether the database is there. Raises NotFound, or ConfigError where something else than Chroma answers."""
    try:
        client.api.get_database(options.database, tenant=options.tenant)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{target.shown} answers, and is no Chroma server") from error
