"""One open collection of the embedded engine: SQLite's rows, the view of them in memory, and the index over that view.

A write commits, then publishes a new view; a reader takes the view and fetches what it returns by row id, and starts again in
the rare case that a row it found has changed in between.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

import numpy as np

from vectorkit.adapter import Change, KeywordQuery, Mode, Plan, Query, Scope, Selector, WriteReport
from vectorkit.codec import NEVER, decode, encode, from_micros
from vectorkit.errors import AlreadyExists, Closed, Corrupt, NotFound, Unavailable
from vectorkit.filters import Node
from vectorkit.local.ann import AnnIndex, IndexMaker, calibrate
from vectorkit.local.columns import Mask
from vectorkit.local.exact import Slots, prepare
from vectorkit.local.generation import (
    INDEX,
    TABLE,
    VECTORS,
    Draft,
    Generation,
    load_generation,
    mapped,
    remove,
    remove_others,
)
from vectorkit.local.rows import Rows, head_sum, read_state
from vectorkit.local.view import View
from vectorkit.ranking import top
from vectorkit.types import IVF, Batch, CollectionSpec, Cursor, FloatArray, Hits, Page, Record, Stats, make_hit
from vectorkit.validate import expiry_micros
from vectorkit.words import search

T = TypeVar("T")
BUILD_CHUNK = 65_536
WIDE_SHARE = 0.2  # a filter that keeps less is answered exactly: that is as fast, and an index loses rows there
_EMPTY: dict[str, Any] = {}


class _Stale(Exception):  # not an error: a reader starts again
    """A row that was found has changed since the view was taken."""


class Shelf:
    """The verbs of one physical collection, blocking; the adapter offloads them."""

    def __init__(
        self, folder: Path, spec: CollectionSpec, make_index: IndexMaker, *, read_only: bool, shown: str, cache_mb: int
    ) -> None:
        self.spec = spec
        self.shown = shown
        self._folder = folder
        self._make_index = make_index
        self._read_only = read_only
        self._rows = Rows(
            folder / "rows.db",
            read_only=read_only,
            shown=shown,
            cache_mb=cache_mb,
            text=spec.text,
            dimension=spec.dimension,
        )
        self._lock = threading.RLock()
        self._optimizing = threading.Lock()
        self._view: View | None = None
        self._version: int | None = None
        self._epoch = -1
        self._dropped = False

    # ------------------------------------------------------------------------------------- the view

    def view(self) -> View:
        """The published view, loaded at first use; a read-only handle first catches up with its writer."""
        view = self._view
        if view is not None and not self._read_only:
            return view
        with self._lock:
            self._check_open()
            if self._read_only:
                return self._follow()
            if self._view is None:
                self._view = self._load()
            return self._view

    def _load(self) -> View:
        """The rows as they are now: a generation and what came after it, or all of them from the database."""
        with self._rows.reading() as connection:
            connection.execute("BEGIN")
            try:
                state = read_state(connection, self.shown)
                view, doubt = self._generation(str(state["generation"]), str(state["uid"]))
                view = self._caught_up(connection, view, int(state["seq"]))
            finally:
                connection.execute("ROLLBACK")
        self._epoch = int(state["epoch"])
        if doubt and not self._read_only:
            self._view = view
            with suppress(Unavailable):  # a full disk, say: exact search answers meanwhile
                return self._rebuild(view)
        return view

    def _generation(self, id: str, uid: str) -> tuple[View, str | None]:
        """The view that the generation of this id holds, else an empty one and why."""
        if not id:
            return View.empty(self.spec), None
        found = load_generation(self._folder / "index", id, self.spec, self._make_index, uid=uid)
        if isinstance(found, tuple):
            try:
                return View.of(self.spec, *found), None
            except (KeyError, ValueError, TypeError) as error:
                found = str(error)
        return View.empty(self.spec), found

    def _caught_up(self, connection: sqlite3.Connection, view: View, seq: int) -> View:
        """A view with what was committed since it: rows of the journal are gone or have other metadata, higher rids are new."""
        touched = [r for (r,) in connection.execute("SELECT DISTINCT rid FROM journal WHERE seq > ?", (view.seq,))]
        if touched and view.rows:
            still: dict[int, str | None] = {}
            for start in range(0, len(touched), 500):
                part = json.dumps(touched[start : start + 500])
                still.update(
                    connection.execute(
                        "SELECT rid, metadata FROM rows WHERE rid IN (SELECT value FROM json_each(?))", (part,)
                    ).fetchall()
                )
            view = view.without([rid for rid in touched if rid not in still], seq)
            if still:
                view = view.changed(list(still), [self._decode(document) for document in still.values()], seq)
        last = int(view.rids[view.rows - 1]) if view.rows else 0
        if not view.rows:
            (count,) = connection.execute("SELECT count(*) FROM rows").fetchone()
            view = View.empty(self.spec, reserve=count)
        for rows in self._rows.load(last, connection):
            view = self._append(view, rows, np.fromiter((row[0] for row in rows), np.int64, len(rows)), seq)
        return replace(view, seq=seq)

    def _append(self, view: View, rows: list[tuple[Any, ...]], rids: Slots, seq: int) -> View:
        return view.appended(
            seq=seq,
            rids=rids,
            ids=[row[1] for row in rows],
            vectors=self._vectors([row[3] for row in rows]),
            expires=[row[2] for row in rows],
            metadata=[self._decode(row[4]) for row in rows] if view.spec.fields else None,
            payload=any(row[5] for row in rows),
        )

    def _vectors(self, blobs: list[bytes]) -> FloatArray:
        width = 4 * self.spec.dimension
        if any(type(blob) is not bytes or len(blob) != width for blob in blobs):
            raise Corrupt(f"{self.shown}: a stored vector has the wrong length; restore the directory from a backup")
        return np.frombuffer(b"".join(blobs), "<f4").astype(np.float32, copy=False).reshape(len(blobs), -1)

    def _decode(self, document: str | None) -> dict[str, Any]:
        try:
            return decode(document)
        except (ValueError, TypeError, RecursionError) as error:
            raise Corrupt(f"{self.shown}: a metadata document is damaged ({error}); restore from a backup") from error

    def _follow(self) -> View:
        """A read-only handle: read what its writer has committed since."""
        connection = self._rows.writer
        try:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if self._view is not None and version == self._version:
                return self._view
            if self._view is None:
                self._view = self._load()
            else:
                self._view = self._catch_up(connection, self._view)
            self._version = version
        except sqlite3.Error as error:
            from vectorkit.local.sql import translate

            raise translate(error, self.shown) from error
        return self._view

    def _catch_up(self, connection: sqlite3.Connection, view: View) -> View:
        connection.execute("BEGIN")
        try:
            state = read_state(connection, self.shown)
            if int(state["epoch"]) == self._epoch:
                view = self._caught_up(connection, view, int(state["seq"]))
                return self._trimmed(view) or view
        finally:
            connection.execute("ROLLBACK")
        return self._load()

    def _check_open(self) -> None:
        if self._dropped:
            raise NotFound(f"{self.shown}: the collection {self.spec.name!r} was dropped")

    # ------------------------------------------------------------------------------------- writes

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One writer at a time. A write that is cut short anywhere, by Ctrl-C between commit and publishing too, leaves the
        view to be read afresh from the truth."""
        with self._lock:
            self._check_open()
            try:
                yield
            except AlreadyExists:
                raise
            except MemoryError as error:
                self._view = None
                raise Unavailable(f"{self.shown}: memory is short; optimize() moves vectors out of it") from error
            except BaseException:
                self._view = None
                raise

    def write(self, scope: Scope, batch: Batch, mode: Mode) -> WriteReport:
        with self._changing():
            rows = self._rows
            documents: list[str | None] = (
                [encode(m) if m else None for m in batch.metadata] if batch.metadata else [None] * len(batch)
            )
            expires = expiry_micros(batch)
            texts = batch.texts or [None] * len(batch)
            view = self._view
            chosen = range(len(batch))
            killed: list[int] = []
            with rows.transaction() as connection:
                seq = rows.next_seq()
                first = rows.rid + 1

                def insert(which: Sequence[int]) -> None:
                    width = 4 * self.spec.dimension
                    raw = memoryview(np.ascontiguousarray(batch.vectors, "<f4").data).cast("B")
                    tenant, ids = scope.tenant, batch.ids
                    made = []
                    for rid, at in enumerate(which, first):
                        id, until, document, text = ids[at], expires[at], documents[at], texts[at]  # noqa: A001
                        vector = raw[at * width : (at + 1) * width]
                        total = head_sum(rid, tenant, id, seq, until, document, text) ^ crc32(vector)
                        made.append((rid, tenant, id, seq, until, total, document, text, vector))
                    rows.add(made, [(row[0], row[7]) for row in made if row[7] is not None])

                if mode == "upsert":
                    connection.execute("SAVEPOINT fresh")
                    try:
                        insert(chosen)
                    except sqlite3.IntegrityError:  # some ids are there: take those out first
                        connection.execute("ROLLBACK TO fresh")
                        killed = [rid for rid, _, _ in rows.find(scope.tenant, batch.ids)]
                        rows.remove(killed)
                        insert(chosen)
                    connection.execute("RELEASE fresh")
                else:
                    found = rows.find(scope.tenant, batch.ids)
                    live = {id for _, id, until in found if scope.now is None or until > scope.now}  # noqa: A001
                    if live and mode == "insert":
                        taken = [id for id in batch.ids if id in live]  # noqa: A001
                        raise AlreadyExists(
                            f"{len(taken)} of the ids exist, the first is {taken[0]!r}; nothing was written", ids=taken
                        )
                    killed = [rid for rid, id, _ in found if id not in live]  # noqa: A001
                    rows.remove(killed)
                    chosen = [at for at, id in enumerate(batch.ids) if id not in live] if live else chosen  # type: ignore[assignment]  # noqa: A001
                    insert(chosen)
                if view is not None:
                    view = self._staged(view, batch, documents, expires, chosen, first, killed)
            self._view = self._trimmed(view)
            return WriteReport(written=len(chosen), skipped=len(batch) - len(chosen))

    def _staged(
        self,
        view: View,
        batch: Batch,
        documents: list[str | None],
        expires: list[int],
        chosen: Sequence[int],
        first: int,
        killed: list[int],
    ) -> View:
        """The view after a write, ready to publish the moment it is committed."""
        whole = len(chosen) == len(batch)
        pick = None if whole else list(chosen)
        metadata = [m or _EMPTY for m in batch.metadata] if batch.metadata else [_EMPTY] * len(batch)
        if killed:
            view = view.without(killed, self._rows.seq)
        payload = any(documents) or (batch.texts is not None and any(text is not None for text in batch.texts))
        return view.appended(
            seq=self._rows.seq,
            rids=np.arange(first, first + len(chosen)),
            ids=batch.ids if whole else [batch.ids[at] for at in chosen],
            vectors=batch.vectors if whole else batch.vectors[pick],
            expires=expires if whole else [expires[at] for at in chosen],
            metadata=metadata if whole else [metadata[at] for at in chosen],
            payload=payload,
        )

    def _trimmed(self, view: View | None) -> View | None:
        """The view without the dead slots beyond its index, once they are as many as the live ones: they cost memory."""
        if view is None or min(view.dead, view.rows - view.indexed) < 1_024:
            return view
        alive = np.flatnonzero(view.alive[view.indexed : view.rows]) + view.indexed
        if 2 * len(alive) > view.rows - view.indexed:
            return view
        return view.taken(np.concatenate([np.arange(view.indexed), alive]), view.seq)

    def update(self, scope: Scope, ids: Sequence[str], change: Change) -> int:
        with self._changing():
            rows = self._rows
            view = self._view
            with rows.transaction() as connection:
                found = connection.execute(
                    "SELECT rid, id, seq, expires, metadata, text, sum FROM rows "
                    "WHERE tenant = ? AND id IN (SELECT value FROM json_each(?)) AND expires > ?",
                    (scope.tenant, json.dumps(ids), _now(scope)),
                ).fetchall()
                current = [(row, self._decode(row[4])) for row in found]
                changed = [
                    (row, change.apply(m)) for row, m in current if change.where is None or change.where.matches(m)
                ]
                if not changed:
                    return 0
                rows.next_seq()
                rows.change(scope.tenant, [(*row, encode(m) if m else None) for row, m in changed])
                rids = [row[0] for row, _ in changed]
                if view is not None:
                    view = view.changed(rids, [metadata for _, metadata in changed], rows.seq)
            self._view = view
            return len(changed)

    def delete(self, scope: Scope, selector: Selector) -> int:
        with self._changing():
            rows = self._rows
            view = self.view() if selector.ids is None and selector.plan is not None else None
            with rows.transaction() as connection:
                if selector.ids is not None:
                    rids = self._among(connection, scope, selector.ids, selector.plan)
                elif selector.plan is None:
                    rids = [
                        rid
                        for (rid,) in connection.execute(
                            "SELECT rid FROM rows WHERE tenant = ? AND expires > ?", (scope.tenant, _now(scope))
                        )
                    ]
                else:
                    assert view is not None
                    mask, _ = self._mask(view, scope, selector.plan, None)
                    rids = view.rids[: view.rows].tolist() if mask is None else view.rids[: view.rows][mask].tolist()
                if rids:
                    rows.next_seq()
                    rows.remove(rids)
            if rids and self._view is not None:
                self._view = self._trimmed(self._view.without(rids, rows.seq))
            return len(rids)

    def _among(self, connection: sqlite3.Connection, scope: Scope, ids: Sequence[str], plan: Plan | None) -> list[int]:
        """The rids of those ids that are there, and that the filter holds for now."""
        found = connection.execute(
            "SELECT rid, metadata FROM rows WHERE tenant = ? AND id IN (SELECT value FROM json_each(?)) AND expires > ?",
            (scope.tenant, json.dumps(ids), _now(scope)),
        ).fetchall()
        return [rid for rid, document in found if plan is None or plan.where.matches(self._decode(document))]

    # ------------------------------------------------------------------------------------- reads

    def _fresh(self, read: Callable[[View], T]) -> T:
        """Read under one view; begin again when a row changed in between, at last with writers held off."""
        for attempt in range(20):
            try:
                return read(self.view())
            except _Stale:
                if attempt:
                    time.sleep(0.0005 * attempt)
        with self._lock:
            try:
                return read(self.view())
            except _Stale:
                raise Unavailable(f"{self.shown}: rows change faster than they can be read; try again") from None

    def _mask(self, view: View, scope: Scope, plan: Plan | None, ids: Sequence[str] | None) -> tuple[Mask | None, int]:
        """The slots a request may see, None for all, and how many they are."""
        if plan is None and ids is None and scope.now is None and not view.dead:
            return None, view.rows
        mask = view.visible(scope.now)
        native: Node | None = None if plan is None else plan.native
        if native is not None:
            matching = view.columns.mask(native, view.rows)
            mask = matching if mask is None else mask & matching
        if ids is not None:
            among = np.zeros(view.rows, np.bool_)
            with self._rows.reading() as connection:
                found = connection.execute(
                    "SELECT rid FROM rows WHERE tenant = ? AND id IN (SELECT value FROM json_each(?)) ORDER BY rid",
                    (scope.tenant, json.dumps(ids)),
                ).fetchall()
            slots = view.slots_of([rid for (rid,) in found])
            if len(slots) < len(found):  # some of them were written after this view
                raise _Stale
            among[slots] = True
            mask = among if mask is None else mask & among
        return mask, view.rows if mask is None else int(np.count_nonzero(mask))

    def query(self, scope: Scope, query: Query) -> list[Hits]:
        view = self._view
        if view is not None and not self._read_only:
            try:
                return self._query(view, scope, query)
            except _Stale:
                pass
        return self._fresh(lambda view: self._query(view, scope, query))

    def _query(self, view: View, scope: Scope, query: Query) -> list[Hits]:
        self._check_open()
        if query.plan is None and query.ids is None and scope.now is None and not view.dead:
            mask, count = None, view.rows
        else:
            mask, count = self._mask(view, scope, query.plan, query.ids)
        queries = prepare(query.vectors, self.spec.metric)
        found, exact, path = self._search(view, queries, query, mask, count)
        if not view.payload and not query.vectors_back:
            ids = view.ids
            return [
                Hits([make_hit(ids[slot], s, None, {}, None) for slot, s in best], coverage=exact, path=path)  # type: ignore[arg-type]
                for best in found
            ]
        wanted = view.rids[[slot for best in found for slot, _ in best]].tolist() if any(found) else []
        rows = self._rows.payload(
            wanted if len(found) == 1 else list(dict.fromkeys(wanted)), vectors=query.vectors_back
        )
        results = []
        at = 0
        for best in found:
            hits = Hits(coverage=exact, path=path)  # type: ignore[arg-type]
            for _, s in best:
                hits.append(self._hit(rows.get(wanted[at]), s, view))
                at += 1
            results.append(hits)
        return results

    def _hit(self, row: tuple[Any, ...] | None, value: float, view: View) -> Any:
        if row is None or row[2] > view.seq:
            raise _Stale
        vector = np.frombuffer(row[5], "<f4").astype(np.float32) if len(row) > 5 else None
        return make_hit(row[1], value, row[4], self._decode(row[3]) if row[3] is not None else {}, vector)

    def _search(
        self, view: View, queries: FloatArray, query: Query, mask: Mask | None, count: int
    ) -> tuple[list[list[tuple[int, float]]], str, str]:
        """(slot, score) lists, coverage and path."""
        if not count:
            return [[] for _ in queries], "exact", "no row matches"
        k = min(query.k, count)
        generation = view.generation
        limit = getattr(self.spec.index, "full_scan_threshold", 0)
        narrow = mask is not None and count < WIDE_SHARE * view.rows
        index = None if generation is None else generation.index
        plain = query.exact or query.ids is not None or count <= max(limit, k) or narrow
        if generation is None or index is None or plain or view.space.overflows(queries):
            slots = None if mask is None else np.flatnonzero(mask)
            return view.space.search(queries, k, slots), "exact", f"exact over {count} of {view.rows} rows"
        try:
            found = self._approximate(view, generation, index, queries, query, mask, count)
        except RuntimeError as error:  # the library failed, out of memory say: the rows are here
            slots = None if mask is None else np.flatnonzero(mask)
            return view.space.search(queries, k, slots), "exact", f"exact, since the index failed: {error}"
        short = [at for at, best in enumerate(found) if len(best) < k]
        path = f"{type(self.spec.index).__name__} over {view.indexed} rows, exact over {view.rows - view.indexed} newer"
        if short:
            slots = None if mask is None else np.flatnonzero(mask)
            for at, best in zip(short, view.space.search(queries[short], k, slots), strict=True):
                found[at] = best
            path += ", exact again where short"
        return found, "complete", path

    def _approximate(
        self,
        view: View,
        generation: Generation,
        index: AnnIndex,
        queries: FloatArray,
        query: Query,
        mask: Mask | None,
        count: int,
    ) -> list[list[tuple[int, float]]]:
        """(slot, score) lists; empty where the index did not find as many rows as it must."""
        indexed = view.indexed
        k = min(query.k, count)
        inside = None if mask is None else mask[:indexed]
        kept = indexed if inside is None else int(np.count_nonzero(inside))
        labels = self._labels(generation, index, queries, query, k, inside, kept)
        newer = np.arange(indexed, view.rows)
        if mask is not None:
            newer = newer[mask[indexed:]]
        tails = view.space.search(queries, k, newer) if len(newer) else [[] for _ in queries]
        found: list[list[tuple[int, float]]] = []
        for at, vector in enumerate(queries):
            slots = np.unique(labels[at][labels[at] >= 0])
            if len(slots) < min(k, kept):
                found.append([])
                continue
            if tails[at]:
                slots = np.concatenate([slots, [slot for slot, _ in tails[at]]])
            found.append(top(view.space.scores(slots, vector), slots, view.ids, k))
        return found

    def _labels(
        self,
        generation: Generation,
        index: AnnIndex,
        queries: FloatArray,
        query: Query,
        k: int,
        inside: Mask | None,
        kept: int,
    ) -> Slots:
        """(q, m) near slots that the filter keeps, -1 where there are fewer.

        A graph is asked for more and the filter applied after: led by a filter it would look where the kept rows are not, and where
        those lie elsewhere find the wrong ones. An inverted file looks through whole lists, and can leave out what is not kept.
        """
        ivf = isinstance(self.spec.index, IVF)
        asked_width = query.probes if ivf else query.ef_search
        width = asked_width or generation.width
        size = index.size()
        if inside is None or kept == size:
            return index.search(queries, min(k * generation.spare + 8, size), allowed=None, width=width)
        if not kept:
            return np.full((len(queries), 1), -1, np.int64)
        if ivf:
            if asked_width is None:
                width = int(width * size / kept)
            spare = min(64, 4 * generation.spare) if index.lossy else 1  # what ranks well among all may not among these
            return index.search(queries, min(k * spare + 8, size), allowed=inside, width=width)
        asked = min(int(1.5 * k * generation.spare * size / kept) + 16, size)
        labels = index.search(
            queries, asked, allowed=None, width=max(width, 2 * asked) if asked_width is None else width
        )
        return np.where((labels >= 0) & inside[labels], labels, -1)

    def keyword(self, scope: Scope, query: KeywordQuery) -> Hits:
        return self._fresh(lambda view: self._keyword(view, scope, query))

    def _keyword(self, view: View, scope: Scope, query: KeywordQuery) -> Hits:
        self._check_open()
        plain = query.plan is None and query.ids is None and scope.now is None
        allowed: Callable[[int], bool] | None = None
        if not plain:
            mask, _ = self._mask(view, scope, query.plan, query.ids)
            if mask is not None:
                allowed = set(view.rids[: view.rows][mask].tolist()).__contains__
        with self._rows.reading() as connection:

            def check() -> None:
                """`allowed` was made from the view: a row written since would be left out, so the snapshot must be the same."""
                (seq,) = connection.execute("SELECT value FROM state WHERE key = 'seq'").fetchone()
                if int(seq) != view.seq:
                    raise _Stale

            ranked = search(connection, query.words, query.k, allowed, None if allowed is None else check)
        rows = self._rows.payload([rid for rid, _ in ranked], vectors=query.vectors_back)
        hits = Hits(coverage="exact", path="FTS5, BM25")
        for rid, value in ranked:
            hits.append(self._hit(rows.get(rid), value, view))
        return hits

    def get(self, scope: Scope, ids: Sequence[str], *, vectors: bool) -> list[Record]:
        self._check_open()
        now = _now(scope)
        return [
            self._record(id, metadata, text, expires, vector if vectors else None)
            for id, metadata, text, expires, vector in self._rows.get(scope.tenant, ids)  # noqa: A001
            if expires > now
        ]

    def _record(self, id: str, metadata: str | None, text: str | None, expires: int, vector: bytes | None) -> Record:
        return Record(
            id,
            None if vector is None else self._vectors([vector])[0].copy(),
            text,
            self._decode(metadata),
            None if expires == NEVER else from_micros(expires),
        )

    def count(self, scope: Scope, plan: Plan | None) -> int:
        self._check_open()
        if self._view is None and plan is None:
            with self._rows.reading() as connection:
                (rows,) = connection.execute(
                    "SELECT count(*) FROM rows WHERE tenant = ? AND expires > ?", (scope.tenant, _now(scope))
                ).fetchone()
                return int(rows)
        return self._mask(self.view(), scope, plan, None)[1]

    def page(self, scope: Scope, plan: Plan | None, cursor: Cursor | None, *, limit: int, vectors: bool) -> Page:
        """By id, so that an upsert does not move a row; under a filter the ids that matched are fixed by the first page."""
        self._check_open()
        if plan is None or plan.native is None:
            return self._page_all(scope, cursor, limit=limit, vectors=vectors)
        if cursor is None:
            view = self.view()
            mask, _ = self._mask(view, scope, plan, None)
            slots = range(view.rows) if mask is None else np.flatnonzero(mask).tolist()
            ids = sorted(view.ids[slot] for slot in slots)
            start = 0
        else:
            ids, start = cursor.position
        matches = plan.native.matches
        part = ids[start : start + limit]
        found = {r.id: r for r in self.get(scope, part, vectors=vectors)} if part else {}
        records = [r for id in part if (r := found.get(id)) is not None and matches(r.metadata)]  # noqa: A001
        end = start + limit
        return Page(records, Cursor(None, (ids, end)) if end < len(ids) else None)

    def _page_all(self, scope: Scope, cursor: Cursor | None, *, limit: int, vectors: bool) -> Page:
        after = "" if cursor is None else cursor.position
        rows = self._rows.page(scope.tenant, after, limit + 1, vectors=vectors)
        now = _now(scope)
        records = [
            self._record(row[1], row[2], row[3], row[4], row[5] if vectors else None)
            for row in rows[:limit]
            if row[4] > now
        ]
        return Page(records, Cursor(None, rows[limit - 1][1]) if len(rows) > limit else None)

    def stats(self, scope: Scope) -> Stats:
        self._check_open()
        view = self.view()
        _, rows = self._mask(view, scope, None, None)
        generation = view.generation
        index = None if generation is None else generation.index
        sizes = {
            "database on disk": self._rows.bytes(),
            "vectors in memory": view.tail[: view.rows - view.indexed].nbytes,
            "ids and fields in memory": view.columns.bytes
            + view.rids.nbytes
            + sum(map(len, view.ids))
            + 58 * view.rows,
        }
        if generation is not None:
            sizes["vectors on disk"] = generation.sizes[VECTORS]
            sizes["table on disk"] = generation.sizes[TABLE]
        if generation is not None and index is not None:
            sizes["index on disk"] = sizes["index in memory"] = generation.sizes[INDEX]
        return Stats(
            rows=rows,
            index="flat" if index is None else type(self.spec.index).__name__.lower(),
            indexed=0 if index is None else view.indexed,
            tombstones=view.dead / view.rows if view.rows else 0.0,
            bytes=sizes,
        )

    # ------------------------------------------------------------------------------------- the index

    def optimize(self) -> None:
        with self._optimizing:
            self._check_open()
            view = self.view()
            generation = view.generation
            wanting = generation is None or (generation.index is None and self._make_index(self.spec) is not None)
            if wanting or view.seq != getattr(generation, "seq", None) or view.rows != view.indexed or view.dead:
                self._rebuild(view)
            with self._lock:
                self._check_open()
                self._rows.tidy()

    def _rebuild(self, view: View) -> View:
        """Write the live rows of a view down with an index over them, while readers and writers go on; then publish that over
        whatever the view has become meanwhile."""
        live = np.flatnonzero(view.alive[: view.rows])
        self._check_open()
        draft = Draft(self._folder / "index", self.spec, len(live))
        try:
            for start in range(0, len(live), BUILD_CHUNK):  # in parts, so that Ctrl-C is heard
                draft.add(view.space.gather(live[start : start + BUILD_CHUNK]))
            index, width, spare = self._build(view, live, draft.vectors())
            uid = str(self._rows.state["uid"])
            generation = draft.finish(index, width, spare, view.table(live), uid=uid, seq=view.seq)
            base = mapped(self._folder / "index" / generation.id / VECTORS, len(live), self.spec.dimension)
        except (Unavailable, RuntimeError, OSError) as error:
            self._check_open()  # the folder went because the collection did
            if isinstance(error, Unavailable):
                raise
            raise Unavailable(f"{self.shown}: the index could not be built: {error}; the rows are safe") from error
        finally:
            draft.close()
        try:
            return self._publish(view, live, generation, base)
        except BaseException:
            if self._rows.state["generation"] != generation.id:
                remove(self._folder / "index" / generation.id)
            raise

    def _publish(self, view: View, live: Slots, generation: Generation, base: FloatArray) -> View:
        with self._lock:
            self._check_open()
            current = self._view
            published = None
            if current is not None and current.follows(view):
                kept = np.concatenate([live, np.arange(view.rows, current.rows)])
                published = current.rebased(kept, generation, base, current.seq)
            with self._rows.transaction():
                self._rows.fold(generation.id, generation.seq)
            if published is None:  # slots have been renumbered meanwhile: read afresh, from this generation
                published = self._load()
            self._view = published
            self._epoch = self._rows.epoch
            remove_others(self._folder / "index", generation.id)
            return published

    def _build(self, view: View, live: Slots, base: FloatArray) -> tuple[AnnIndex | None, int, int]:
        """An index over the rows with its default width and spare; None when there is none to build, or none that earns its place."""
        index = self._make_index(self.spec)
        count = len(live)
        if index is None or not count or not 1e-30 < view.largest < 1e30:  # float32 distances would overflow, or vanish
            return None, 0, 0
        picked = np.sort(np.random.default_rng(0).permutation(count)[: index.training])
        index.build(base[picked], count)
        for start in range(0, count, BUILD_CHUNK):
            index.add(base[start : start + BUILD_CHUNK])
        found = calibrate(index, base, self.spec.metric, None if view.norms is None else view.norms[live])
        return (None, 0, 0) if found is None else (index, *found)

    @property
    def dropped(self) -> bool:
        """Whether the collection was dropped under this handle."""
        return self._dropped

    def drop(self) -> None:
        """Mark as dropped and let go of the files."""
        self._dropped = True
        with self._lock:
            self._view = None
            self._rows.close()

    def close(self) -> None:
        """Let go of the files, the mapped vectors too."""
        with self._lock:
            self._view = None
            self._rows.close()


def _now(scope: Scope) -> int:
    """The instant that expiries are compared with: before all of them where rows do not expire."""
    return -(2**63) if scope.now is None else scope.now


__all__ = ["Closed", "Shelf"]
