"""`memory://`: a store in numpy and dicts, exact, that every other one is compared with.

Kept plain on purpose: filters are `matches()` itself and scores are computed in float64 over every row.
"""

import sqlite3
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

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
from vectorkit.codec import NEVER, copy_metadata, from_micros
from vectorkit.errors import AlreadyExists, NotFound, Unsupported
from vectorkit.filters import Node
from vectorkit.ranking import top
from vectorkit.runtime import Runtime
from vectorkit.types import Batch, CollectionSpec, Cursor, FloatArray, Hit, Hits, Page, Record, Stats, make_hit, take
from vectorkit.validate import expiry_micros
from vectorkit.words import ADD_WORDS, CREATE_WORDS, REMOVE_WORDS, search

Key = tuple[str, str]
BLOCK = 8_192

CAPABILITY = Capability(
    store="memory",
    durable=False,
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


class _Shelf:
    """The rows of one collection: a slot each, kept by an upsert, so that a scan meets each id once."""

    def __init__(self, spec: CollectionSpec) -> None:
        self.spec = spec
        self.slots: dict[Key, int] = {}
        self.keys: list[Key] = []
        self.ids: list[str] = []
        self.texts: list[str | None] = []
        self.metadata: list[dict[str, Any]] = []
        self.expires: list[int] = []
        self.vectors: FloatArray = np.zeros((0, spec.dimension), np.float32)
        self.sorted: list[Key] | None = None
        self._words: sqlite3.Connection | None = None
        self._worded: dict[int, str] = {}
        self._unworded: set[int] = set()

    def visible(self, scope: Scope, slot: int) -> bool:
        return scope.now is None or self.expires[slot] > scope.now

    def rows(self, scope: Scope, plan: Plan | None, ids: Sequence[str] | None = None) -> Iterator[int]:
        """The slots of the live rows of a scope, among ids, under a filter."""
        tenant = scope.tenant
        if ids is not None:
            found = (self.slots.get((tenant, id)) for id in ids)  # noqa: A001
            slots: Iterator[int] = (slot for slot in found if slot is not None)
        else:
            slots = (slot for key, slot in self.slots.items() if key[0] == tenant)
        for slot in slots:
            if not self.visible(scope, slot):
                continue
            if plan is None or plan.where.matches(self.metadata[slot]):
                yield slot

    def put(self, keys: list[Key], batch: Batch) -> None:
        count = len(self.keys)
        taken = [self.slots.get(key) for key in keys]
        fresh = sum(slot is None for slot in taken)
        self._reserve(count + fresh)
        expires = expiry_micros(batch)
        texts = batch.texts or [None] * len(keys)
        metadata = [{} if m is None else dict(m) for m in batch.metadata] if batch.metadata else [{}] * len(keys)
        if fresh == len(keys):
            self.vectors[count : count + fresh] = batch.vectors
            self.keys.extend(keys)
            self.ids.extend(batch.ids)
            self.texts.extend(texts)
            self.metadata.extend(metadata)
            self.expires.extend(expires)
            self.slots.update(zip(keys, range(count, count + fresh), strict=True))
            self._unworded.update(range(count, count + fresh))
        else:
            for row, key in enumerate(keys):
                slot = taken[row]
                if slot is None:
                    slot = self.slots[key] = len(self.keys)
                    self.keys.append(key)
                    self.ids.append(key[1])
                    self.texts.append(None)
                    self.metadata.append({})
                    self.expires.append(NEVER)
                self.vectors[slot] = batch.vectors[row]
                self.texts[slot] = texts[row]
                self.metadata[slot] = metadata[row]
                self.expires[slot] = expires[row]
                self._unworded.add(slot)
        self.sorted = None

    def _reserve(self, rows: int) -> None:
        if rows > len(self.vectors):
            grown = np.zeros((max(rows, 2 * len(self.vectors), 64), self.spec.dimension), np.float32)
            grown[: len(self.keys)] = self.vectors[: len(self.keys)]
            self.vectors = grown

    def remove(self, slots: list[int]) -> None:
        for slot in slots:
            del self.slots[self.keys[slot]]
            self.texts[slot] = None
            self.metadata[slot] = {}
            self._unworded.add(slot)
        self.sorted = None
        if len(self.keys) > 64 and len(self.slots) * 2 < len(self.keys):
            self.compact()

    def compact(self) -> None:
        """Close the holes that deletes left."""
        kept = sorted(self.slots.values())
        self.vectors = self.vectors[kept].copy() if kept else np.zeros((0, self.spec.dimension), np.float32)
        self.keys = [self.keys[slot] for slot in kept]
        self.ids = [key[1] for key in self.keys]
        self.texts = [self.texts[slot] for slot in kept]
        self.metadata = [self.metadata[slot] for slot in kept]
        self.expires = [self.expires[slot] for slot in kept]
        self.slots = {key: slot for slot, key in enumerate(self.keys)}
        if self._words is not None:
            self._words.close()
        self._words = None
        self._worded = {}
        self._unworded = set(range(len(self.keys)))

    def words(self) -> sqlite3.Connection:
        """The keyword index, brought up to date with the texts: it is built at the first keyword query."""
        if self._words is None:
            self._words = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
            self._words.execute(CREATE_WORDS)
        changed = sorted(self._unworded)
        self._words.executemany(REMOVE_WORDS, [(s, self._worded.pop(s)) for s in changed if s in self._worded])
        live = {slot: text for slot in changed if (text := self.texts[slot]) is not None}
        self._words.executemany(ADD_WORDS, list(live.items()))
        self._worded.update(live)
        self._unworded.clear()
        return self._words

    def close(self) -> None:
        if self._words is not None:
            self._words.close()
            self._words = None

    def hit(self, slot: int, score: float, vectors: bool) -> Hit:
        vector = self.vectors[slot].copy() if vectors else None
        return make_hit(self.ids[slot], score, self.texts[slot], copy_metadata(self.metadata[slot]), vector)

    def record(self, slot: int, vectors: bool) -> Record:
        expires = self.expires[slot]
        return Record(
            self.ids[slot],
            self.vectors[slot].copy() if vectors else None,
            self.texts[slot],
            copy_metadata(self.metadata[slot]),
            None if expires == NEVER else from_micros(expires),
        )


class _Data:
    """What a `memory://name` shares between its handles."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.specs: dict[str, CollectionSpec] = {}
        self.shelves: dict[tuple[str, str], _Shelf] = {}
        self.generation = 0


_shared: dict[str, _Data] = {}
_shared_lock = threading.Lock()


class MemoryAdapter:
    """Rows in this process. One lock; every verb is quick or proportional to the rows it must look at."""

    def __init__(self, data: _Data, *, read_only: bool = False) -> None:
        self.capability = CAPABILITY
        self._data = data
        self._read_only = read_only

    @property
    def native(self) -> "MemoryAdapter":
        return self

    def plan(self, spec: CollectionSpec, where: Node) -> Plan:
        return Plan(where, native=where, exact=True)

    def _writable(self) -> None:
        if self._read_only:
            raise Unsupported("this memory store was opened with read_only=True; connect without it to write")

    def _shelf(self, scope: Scope) -> _Shelf:
        shelf = self._data.shelves.get((scope.collection, scope.namespace))
        if shelf is None:
            raise NotFound(f"memory has no collection {scope.collection.rpartition('@')[0]!r}")
        return shelf

    async def create(self, spec: CollectionSpec) -> CollectionSpec:
        self._writable()
        with self._data.lock:
            if spec.name in self._data.specs:
                raise AlreadyExists(f"memory has a collection {spec.name!r} already")
            self._data.generation += 1
            made = CollectionSpec.from_json({**spec.to_json(), "generation": self._data.generation})
            self._data.specs[spec.name] = made
            self._data.shelves[made.physical, ""] = _Shelf(made)
            return made

    async def adopt(self, name: str, spec: CollectionSpec, rows: Iterable[Record] | None) -> CollectionSpec:
        raise Unsupported("memory keeps no index of another's; a FAISS file is adopted by a faiss:// store")

    async def describe(self, name: str) -> CollectionSpec:
        with self._data.lock:
            spec = self._data.specs.get(name)
        if spec is None:
            raise NotFound(f"memory has no collection {name!r}")
        return spec

    async def names(self) -> list[str]:
        with self._data.lock:
            return sorted(self._data.specs)

    async def drop(self, name: str) -> None:
        self._writable()
        with self._data.lock:
            spec = self._data.specs.pop(name, None)
            if spec is None:
                raise NotFound(f"memory has no collection {name!r}")
            for key in [key for key in self._data.shelves if key[0] == spec.physical]:
                self._data.shelves.pop(key).close()

    async def write(self, scope: Scope, batch: Batch, mode: Mode) -> WriteReport:
        self._writable()
        with self._data.lock:
            shelf = self._shelf(scope)
            tenant = scope.tenant
            keys = [(tenant, id) for id in batch.ids]  # noqa: A001
            if mode == "upsert":
                shelf.put(keys, batch)
                return WriteReport(written=len(keys))
            live = [
                row
                for row, key in enumerate(keys)
                if (s := shelf.slots.get(key)) is not None and shelf.visible(scope, s)
            ]
            if live and mode == "insert":
                ids = [batch.ids[row] for row in live]
                raise AlreadyExists(
                    f"{len(ids)} of the ids exist, the first is {ids[0]!r}; nothing was written", ids=ids
                )
            there = set(live)
            rows = [row for row in range(len(keys)) if row not in there]
            if rows:
                shelf.put([keys[row] for row in rows], take(batch, rows) if live else batch)
            return WriteReport(written=len(rows), skipped=len(live))

    async def update(self, scope: Scope, ids: Sequence[str], change: Change) -> int:
        self._writable()
        with self._data.lock:
            shelf = self._shelf(scope)
            slots = list(shelf.rows(scope, None if change.where is None else Plan(change.where), ids))
            for slot in slots:
                shelf.metadata[slot] = copy_metadata(change.apply(shelf.metadata[slot]))
            return len(slots)

    async def get(self, scope: Scope, ids: Sequence[str], *, vectors: bool) -> list[Record]:
        with self._data.lock:
            shelf = self._shelf(scope)
            return [shelf.record(slot, vectors) for slot in shelf.rows(scope, None, ids)]

    async def query(self, scope: Scope, query: Query) -> list[Hits]:
        with self._data.lock:
            shelf = self._shelf(scope)
            slots = np.fromiter(shelf.rows(scope, query.plan, query.ids), np.int64)
            found = []
            for vector in query.vectors:
                scores = _scores(shelf, slots, vector)
                best = top(scores, slots, shelf.ids, query.k)
                hits = [shelf.hit(slot, score, query.vectors_back) for slot, score in best]
                found.append(Hits(hits, coverage="exact", path="exact, every matching row"))
            return found

    async def keyword(self, scope: Scope, query: KeywordQuery) -> Hits:
        with self._data.lock:
            shelf = self._shelf(scope)
            allowed = set(shelf.rows(scope, query.plan, query.ids))
            ranked = search(shelf.words(), query.words, query.k, allowed.__contains__)
            return Hits(
                [shelf.hit(slot, score, query.vectors_back) for slot, score in ranked],
                coverage="exact",
                path="FTS5, BM25",
            )

    async def delete(self, scope: Scope, selector: Selector) -> int:
        self._writable()
        with self._data.lock:
            shelf = self._shelf(scope)
            slots = list(shelf.rows(scope, selector.plan, selector.ids))
            shelf.remove(slots)
            return len(slots)

    async def count(self, scope: Scope, plan: Plan | None) -> int:
        with self._data.lock:
            shelf = self._shelf(scope)
            return sum(1 for _ in shelf.rows(scope, plan))

    async def page(self, scope: Scope, plan: Plan | None, cursor: Cursor | None, *, limit: int, vectors: bool) -> Page:
        with self._data.lock:
            shelf = self._shelf(scope)
            if shelf.sorted is None:
                shelf.sorted = sorted(shelf.slots)
            after: Key = (scope.tenant, "") if cursor is None else cursor.position
            records: list[Record] = []
            for at in range(bisect_right(shelf.sorted, after), len(shelf.sorted)):
                key = shelf.sorted[at]
                if key[0] != scope.tenant:
                    break
                slot = shelf.slots[key]
                if not shelf.visible(scope, slot) or not (plan is None or plan.where.matches(shelf.metadata[slot])):
                    continue
                if len(records) == limit:
                    return Page(records, Cursor(None, after))
                records.append(shelf.record(slot, vectors))
                after = key
            return Page(records, None)

    async def stats(self, scope: Scope) -> Stats:
        with self._data.lock:
            shelf = self._shelf(scope)
            rows = sum(1 for _ in shelf.rows(scope, None))
            return Stats(rows=rows, index="flat", indexed=rows, bytes={"vectors in memory": shelf.vectors.nbytes})

    async def optimize(self, name: str) -> None:
        self._writable()
        with self._data.lock:
            self._shelf(Scope(collection=name)).compact()

    async def close(self) -> None:
        pass


def _scores(shelf: _Shelf, slots: npt.NDArray[np.int64], vector: FloatArray) -> npt.NDArray[np.float64]:
    """Scores in float64, row by row with one summation order, so that equal vectors score equally."""
    q = vector.astype(np.float64)
    out = np.empty(len(slots), np.float64)
    for start in range(0, len(slots), BLOCK):
        x = shelf.vectors[slots[start : start + BLOCK]].astype(np.float64)
        match shelf.spec.metric:
            case "dot":
                part = np.einsum("ij,j->i", x, q)
            case "cosine":
                norms = np.sqrt(np.einsum("ij,ij->i", x, x))
                part = np.einsum("ij,j->i", x / norms[:, None], q / np.sqrt(np.dot(q, q)))
            case "l2":
                x -= q
                part = -np.sqrt(np.einsum("ij,ij->i", x, x))
        out[start : start + BLOCK] = part
    return out


async def _open(target: Target, _: Runtime) -> MemoryAdapter:
    if not target.path:
        return MemoryAdapter(_Data(), read_only=target.read_only)
    with _shared_lock:
        data = _shared.setdefault(target.path, _Data())
    return MemoryAdapter(data, read_only=target.read_only)


BACKEND = Backend(store="memory", open=_open, place="name")
