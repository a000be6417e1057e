"""The verbs on one Chroma collection, blocking; the adapter offloads them and turns Chroma's errors into vectorkit's.

Ids are listed first and rows then read by id: Chroma's paging by offset lost 100 of 300 rows while others were deleted.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np

from vectorkit.adapter import Change, Mode, Plan, Query, Scope, Selector, WriteReport
from vectorkit.codec import copy_metadata
from vectorkit.errors import AlreadyExists, Corrupt, PartialFailure, Unsupported, VectorkitError
from vectorkit.local.exact import prepare, score
from vectorkit.ranking import top
from vectorkit.requests import cut
from vectorkit.sequence import Rising
from vectorkit.types import Batch, CollectionSpec, Cursor, FloatArray, Hit, Hits, Page, Record, Stats, make_hit, take
from vectorkit_chroma import convert
from vectorkit_chroma.filters import Where, alive

IDS = 3_000  # ids in one request: SQLite takes some 32,000 bound values
READ = 1_000  # rows with vectors in one request, some 15 MB of JSON at 1,536 dimensions
BODY = 30 * 2**20  # bytes of a request
VECTOR = 5.4  # bytes of a number in a request: base64 of its four
NUMBER = 24  # and in a query, where it is the text of a float64
ESCAPED = 6  # bytes that a character may take
PRECISE = 1_024  # dimensions up to which Chroma's float32 keeps to 1e-5; at 3,000 it was measured 1.7e-5 off
LEAN = 4  # candidates per row wanted, above which only the wanted rows are read whole
MANY = 1_000  # a k up to this is sent as it is; above it no more than there are rows, since the client's integers end


class Rows:
    """One collection. `native` is the client's handle on it, bound to its UUID: what is dropped stays not found."""

    def __init__(
        self,
        native: Any,
        spec: CollectionSpec,
        shown: str,
        *,
        writing: Callable[[bool], AbstractContextManager[None]],
        batch: int,
        exact_limit: int,
    ) -> None:
        self.native = native
        self.spec = spec
        self.shown = f"{shown} {spec.name!r}"
        self._writing = writing
        self._batch = batch
        self._exact_limit = exact_limit
        self._sequence = Rising()
        self._changing = threading.Lock()  # reading before writing, one at a time in this handle

    # ------------------------------------------------------------------------------------- writes

    def write(self, scope: Scope, batch: Batch, mode: Mode) -> WriteReport:
        """Every write is an upsert that sends every key."""
        if mode == "upsert":
            # else an update that has read the row before would put its old metadata beside the new text
            with self._changing:
                return self._upsert(batch, inserting=False)
        with self._changing:
            there = set(self.listed(alive(None, scope.now), batch.ids))
            if there and mode == "insert":
                ids = [id for id in batch.ids if id in there]  # noqa: A001
                raise AlreadyExists(
                    f"{len(ids)} of the ids exist, the first is {ids[0]!r}; nothing was written", ids=ids
                )
            kept = [row for row, id in enumerate(batch.ids) if id not in there]  # noqa: A001
            if kept:
                self._upsert(batch if len(kept) == len(batch) else take(batch, kept), inserting=True)
            return WriteReport(written=len(kept), skipped=len(there))

    def _upsert(self, batch: Batch, *, inserting: bool) -> WriteReport:
        vectors, rows = convert.to_chroma(self.spec, batch, self._sequence.next(len(batch)))
        start = 0
        for stop in self._requests(batch, rows):
            try:
                with self._writing(inserting):
                    self.native.upsert(
                        ids=batch.ids[start:stop], embeddings=vectors[start:stop], metadatas=rows[start:stop]
                    )
            except VectorkitError as error:
                if not start:
                    raise
                failed = batch.ids[start:]
                raise PartialFailure(
                    f"{start} rows were written, {len(failed)} were not: {error}", written=start, failed=failed
                ) from error
            start = stop
        return WriteReport(written=len(batch))

    def _requests(self, batch: Batch, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Where each request ends: a server refuses bodies over 40 MiB (https://github.com/chroma-core/chroma/issues/5192)."""
        sizes = []
        for id, row in zip(batch.ids, rows, strict=True):  # noqa: A001
            written = sum(len(value) for value in row.values() if isinstance(value, str))
            lists = sum(len(one) + 4 for value in row.values() if isinstance(value, list) for one in value)
            sizes.append(VECTOR * self.spec.dimension + ESCAPED * (written + len(id) + lists) + 30 * len(row))
        return cut(sizes, BODY)

    def update(self, scope: Scope, ids: Sequence[str], change: Change) -> int:
        """Read, change, write: text, expiry and vector are not sent, so that they stay whoever writes meanwhile."""
        touched = 0
        for part in convert.chunks(ids, min(IDS, self._batch)):
            with self._changing:
                found = self._rows(part, alive(None, scope.now))
                changed: dict[str, dict[str, Any]] = {}
                for id, row in found.items():  # noqa: A001
                    metadata = self._metadata(id, row)
                    if change.where is None or change.where.matches(metadata):
                        after = change.apply(metadata)
                        keys = {"_vk_meta": convert.document(after), **convert.field_keys(self.spec, after)}
                        changed[id] = {**keys, "_vk_seq": self._sequence.next(1)}
                if changed:
                    self.native.update(ids=list(changed), metadatas=list(changed.values()))
                touched += len(changed)
        return touched

    def delete(self, scope: Scope, selector: Selector) -> int:
        """Until nothing is left; how many rows were there."""
        if selector.ids is not None:
            return self._delete_ids(scope, selector.ids, selector.plan)
        where = alive(None if selector.plan is None else selector.plan.native, scope.now)
        gone = 0
        with self._changing:
            while ids := self.listed(where):
                for part in convert.chunks(ids, IDS):
                    self.native.delete(ids=part, where=where)  # by another's hand a row may match no longer
                gone += len(ids)
        return gone

    def _delete_ids(self, scope: Scope, ids: Sequence[str], plan: Plan | None) -> int:
        gone = 0
        unexpired = alive(None, scope.now)
        for part in convert.chunks(ids, min(IDS, self._batch)):
            with self._changing:
                if plan is None:
                    there = self.listed(unexpired, part)
                else:
                    found = self._rows(part, unexpired)
                    there = [id for id, row in found.items() if plan.where.matches(self._metadata(id, row))]  # noqa: A001
                if there:
                    self.native.delete(ids=there)
                gone += len(there)
        return gone

    # ------------------------------------------------------------------------------------- reads

    def listed(self, where: Where | None, ids: Sequence[str] | None = None) -> list[str]:
        """The ids of the rows under a clause, among some ids."""
        if ids is None:
            everywhere: list[str] = self.native.get(where=where, include=[])["ids"]
            return everywhere
        found: list[str] = []
        for part in convert.chunks(ids, IDS):
            found += self.native.get(ids=part, where=where, include=[])["ids"]
        return found

    def _rows(self, ids: list[str], where: Where | None) -> dict[str, Any]:
        found = self.native.get(ids=ids, where=where, include=["metadatas"])
        return dict(zip(found["ids"], found["metadatas"], strict=True))

    def _metadata(self, id: str, row: Any) -> dict[str, Any]:
        try:
            return convert.metadata_of(row)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damaged(id, error) from error

    def _damaged(self, id: str, error: Exception) -> Corrupt:
        return Corrupt(f"{self.shown}: what is stored of the row {id!r} is damaged ({error}); write that row again")

    def get(self, scope: Scope, ids: Sequence[str], *, vectors: bool) -> list[Record]:
        """Rows by id, the expired left out."""
        records: list[Record] = []
        include = ["metadatas", "embeddings"] if vectors else ["metadatas"]
        for part in convert.chunks(ids, READ if vectors else IDS):
            found = self.native.get(ids=part, include=include)
            stored = found["embeddings"] if vectors else [None] * len(found["ids"])
            for id, row, vector in zip(found["ids"], found["metadatas"], stored, strict=True):  # noqa: A001
                try:
                    if scope.now is None or convert.expires_of(row) > scope.now:
                        records.append(convert.record_of(id, row, vector))
                except (ValueError, TypeError, RecursionError) as error:
                    raise self._damaged(id, error) from error
        return records

    def count(self, scope: Scope, plan: Plan | None) -> int:
        """Chroma counts whole collections only; else ids are listed."""
        where = alive(None if plan is None else plan.native, scope.now)
        return int(self.native.count()) if where is None else len(self.listed(where))

    def page(self, scope: Scope, plan: Plan | None, cursor: Cursor | None, *, limit: int, vectors: bool) -> Page:
        """The cursor holds the ids listed at the start and how far it came: each row once, whatever is written meanwhile."""
        if cursor is None:
            ids, start = self.listed(alive(None if plan is None else plan.native, scope.now)), 0
        else:
            ids, start = cursor.position
        stop = start + limit
        records = self.get(scope, ids[start:stop], vectors=vectors) if ids else []
        if plan is not None:  # a row may have changed since it was listed
            records = [record for record in records if plan.where.matches(record.metadata)]
        return Page(records, Cursor(None, (ids, stop)) if stop < len(ids) else None)

    def stats(self, scope: Scope) -> Stats:
        """Chroma tells nothing of its index; it holds every row as soon as one is read."""
        rows = self.count(scope, None)
        return Stats(rows=rows, index="hnsw", indexed=rows)

    # ------------------------------------------------------------------------------------- queries

    def query(self, scope: Scope, query: Query) -> list[Hits]:
        """The graph's answers, or those of every row with `exact`; what float32 could not measure is measured again."""
        at_once = max(1, int(BODY // (NUMBER * self.spec.dimension)))
        if len(query.vectors) > at_once:
            parts = [query.vectors[at : at + at_once] for at in range(0, len(query.vectors), at_once)]
            return [hits for part in parts for hits in self.query(scope, replace(query, vectors=part))]
        if query.exact:
            return self._exact(scope, query, query.vectors)
        k = query.k
        wide = max(k, query.ef_search or 1)
        if wide > MANY:
            count = max(1, int(self.native.count()))
            k, wide = min(k, count), min(wide, count)
        native = None if query.plan is None else query.plan.native
        found = self._search(scope, query, k, wide, native)
        overflown = [at for at, hits in enumerate(found) if not all(math.isfinite(hit.score) for hit in hits)]
        if overflown:
            again = self._exact(scope, query, query.vectors[overflown])
            for at, hits in zip(overflown, again, strict=True):
                found[at] = hits
        if any(len(hits) < query.k and hits.coverage != "exact" for hits in found):
            matching = len(self.listed(alive(native, scope.now), query.ids))
            for hits in found:
                if len(hits) == matching:
                    hits.coverage = "exact"
        return found

    def _search(self, scope: Scope, query: Query, k: int, wide: int, native: Where | None) -> list[Hits]:
        """Chroma keeps max(ef_search, n_results) candidates: to search wider is to ask for more and keep k."""
        where = alive(native, scope.now)
        if query.ids is None and native is None and scope.now is not None:
            hopeful = self._ask(query, k, max(wide, 2 * k + 16), None, None, scope.now)
            if all(len(hits) >= k for hits in hopeful):
                return hopeful
        if query.ids is None:
            return (
                self._wide(query, k, wide, where) if wide > LEAN * k else self._ask(query, k, wide, where, None, None)
            )
        found = [Hits(coverage="complete") for _ in query.vectors]
        for part in convert.chunks(query.ids, IDS):
            for hits, more in zip(found, self._ask(query, k, wide, where, part, None), strict=True):
                hits.extend(more)
                hits.path = f"{more.path}, among {len(query.ids)} ids"
        return found

    def _ask(
        self, query: Query, k: int, wide: int, where: Where | None, ids: list[str] | None, now: int | None
    ) -> list[Hits]:
        """One request. now: leave out what has expired by then, where no clause did."""
        precise = self.spec.dimension <= PRECISE
        stored = query.vectors_back or not precise
        include = ["metadatas", "distances", *(["embeddings"] if stored else [])]
        vectors = convert.to_query(self.spec, query.vectors)
        answer = self.native.query(query_embeddings=vectors, ids=ids, n_results=wide, where=where, include=include)
        path = f"HNSW, {wide} candidates" if wide > k else "HNSW"
        if where is not None:
            path += ", filtered"
        found = []
        for at, names in enumerate(answer["ids"]):
            rows = answer["metadatas"][at]
            kept = [n for n, row in enumerate(rows) if now is None or convert.expires_of(row) > now][:k]
            embeddings = convert.matrix(answer["embeddings"][at], self.spec.dimension) if stored else None
            if embeddings is None or precise:
                measured = [convert.score(self.spec.metric, answer["distances"][at][n]) for n in kept]
            else:
                measured = score(prepare(embeddings[kept], self.spec.metric), vectors[at], self.spec.metric).tolist()
            back = embeddings if query.vectors_back else None
            hits = [
                self._hit(names[n], score, rows[n], None if back is None else back[n])
                for n, score in zip(kept, measured, strict=True)
            ]
            found.append(Hits(hits, coverage="complete", path=path))
        return found

    def _wide(self, query: Query, k: int, wide: int, where: Where | None) -> list[Hits]:
        """Many candidates: their ids alone are asked for, and the rows of the best k then read."""
        metric = self.spec.metric
        precise = self.spec.dimension <= PRECISE
        vectors = convert.to_query(self.spec, query.vectors)
        answer = self.native.query(query_embeddings=vectors, n_results=wide, where=where, include=["distances"])
        best = [list(zip(*pair, strict=True))[:k] for pair in zip(answer["ids"], answer["distances"], strict=True)]
        ids = list(dict.fromkeys(id for pairs in best for id, _ in pairs))  # noqa: A001
        every = Scope(collection=self.spec.physical)
        rows = {record.id: record for record in self.get(every, ids, vectors=query.vectors_back or not precise)}
        found = []
        for vector, pairs in zip(vectors, best, strict=True):
            hits = Hits(coverage="complete", path=f"HNSW, {wide} candidates" + (", filtered" if where else ""))
            for id, distance in pairs:  # noqa: A001
                row = rows.get(id)
                if row is None or not _matches(query.plan, row):  # deleted or changed in between
                    continue
                measured = convert.score(metric, distance)
                if not precise:
                    stored = np.asarray(row.vector, np.float32)[None]
                    measured = float(score(prepare(stored, metric), vector, metric)[0])
                back = _copy(row.vector) if query.vectors_back else None
                hits.append(make_hit(id, measured, row.text, copy_metadata(row.metadata), back))
            found.append(hits)
        return found

    def _hit(self, id: str, score: float, row: Any, stored: Any) -> Hit:
        given = row or {}
        vector = None if stored is None else convert.vector_of(given, stored)
        return make_hit(id, score, given.get("_vk_text"), self._metadata(id, row), vector)

    def _exact(self, scope: Scope, query: Query, vectors: FloatArray) -> list[Hits]:
        """Every matching row's vector is read, in pages, and scored in float64."""
        native = None if query.plan is None else query.plan.native
        ids = self.listed(alive(native, scope.now), query.ids)
        if len(ids) > self._exact_limit:
            raise Unsupported(
                f"chroma has no exact search of its own and {len(ids)} rows would be read for one; the limit is "
                f"ChromaOptions(exact_limit={self._exact_limit})"
            )
        names: list[str] = []
        parts: list[Any] = []
        asked = convert.to_query(self.spec, vectors)
        for part in convert.chunks(ids, READ):
            got = self.native.get(ids=part, include=["embeddings"])
            stored = self._prepared(got["ids"], convert.matrix(got["embeddings"], self.spec.dimension))
            names += got["ids"]
            parts.append([score(stored, vector, self.spec.metric) for vector in asked])
        slots = np.arange(len(names))
        path = f"exact, {len(names)} vectors read"
        best = [
            top(np.concatenate([part[at] for part in parts]), slots, names, query.k) if parts else []
            for at in range(len(vectors))
        ]
        wanted = sorted({slot for ranked in best for slot, _ in ranked})
        records = {
            record.id: record
            for record in self.get(scope, [names[slot] for slot in wanted], vectors=query.vectors_back)
        }
        return [
            Hits(
                [
                    make_hit(row.id, score, row.text, copy_metadata(row.metadata), _copy(row.vector))
                    for slot, score in ranked
                    if (row := records.get(names[slot])) is not None and _matches(query.plan, row)
                ],
                coverage="exact",
                path=path,
            )
            for ranked in best
        ]

    def _prepared(self, ids: Sequence[str], stored: FloatArray) -> FloatArray:
        with np.errstate(all="ignore"):
            prepared = prepare(stored, self.spec.metric)
        damaged = np.flatnonzero(~np.isfinite(prepared).all(axis=1))
        if len(damaged):
            raise Corrupt(f"{self.shown}: the vector of the row {ids[damaged[0]]!r} is damaged; write that row again")
        return prepared


def _matches(plan: Plan | None, row: Record) -> bool:
    """Whether a row that was found under the filter still matches; under one that keeps more than it means, that is the core's to see."""
    return plan is None or not plan.exact or plan.where.matches(row.metadata)


def _copy(vector: Any) -> FloatArray | None:
    return None if vector is None else np.array(vector, np.float32)
