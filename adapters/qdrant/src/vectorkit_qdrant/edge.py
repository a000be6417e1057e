"""Qdrant's engine in this process (package qdrant-edge-py): a shard for each collection in a directory that has one owner.

The engine has shards only; which there are is in the catalogue that the embedded stores share (`vectorkit.local.home`). Its
searches hold the interpreter's lock, so threads give no speed here and calls are made where they stand.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import qdrant_edge as qe

from vectorkit.errors import Closed, Corrupt, NotFound, Unavailable, Unsupported
from vectorkit.local.home import Home
from vectorkit.local.options import LocalOptions
from vectorkit.runtime import Runtime
from vectorkit.types import HNSW, CollectionSpec, FloatArray
from vectorkit_qdrant.engine import Row, Search, Size
from vectorkit_qdrant.filters import Condition, as_filter
from vectorkit_qdrant.options import QdrantOptions

T = TypeVar("T")
FORMAT = "vectorkit-qdrant-edge"
_DISTANCES = {"cosine": qe.Distance.Cosine, "dot": qe.Distance.Dot, "l2": qe.Distance.Euclid}


# --------------------------------------------------------------------------------------------- conditions


def engine_filter(condition: Condition | None) -> Any:
    """A condition as the engine's own filter."""
    if condition is None:
        return None
    whole = as_filter(condition)
    return qe.Filter(**{name: [_condition(part) for part in parts] for name, parts in whole.items()})


def _condition(condition: Condition) -> Any:
    match condition:
        case {"key": key, "match": {"value": value}}:
            return qe.FieldCondition(key, match=qe.MatchValue(value))
        case {"key": key, "match": {"any": values}}:
            return qe.FieldCondition(key, match=qe.MatchAny(values))
        case {"key": key, "match": {"prefix": prefix}}:
            return qe.FieldCondition(key, match=qe.MatchPrefix(prefix))
        case {"key": key, "range": bounds}:
            return qe.FieldCondition(key, range=qe.RangeFloat(**{name: float(bound) for name, bound in bounds.items()}))
        case {"is_empty": {"key": key}}:
            return qe.IsEmptyCondition(key)
        case {"has_id": points}:
            return qe.HasIdCondition(set(points))
        case _:
            return engine_filter(condition)


def _included(keys: Sequence[str] | None) -> Any:
    return True if keys is None else qe.PayloadSelector.Include(list(keys))


def _config(spec: CollectionSpec) -> Any:
    index = spec.index if isinstance(spec.index, HNSW) else HNSW()
    flat = not isinstance(spec.index, HNSW)
    graph = qe.HnswIndexConfig(
        m=0 if flat else index.m,
        ef_construct=index.ef_construction,
        full_scan_threshold=_KILOBYTES,
        max_indexing_threads=0,
    )
    return qe.EdgeConfig(
        vectors=qe.EdgeVectorParams(size=spec.dimension, distance=_DISTANCES[spec.metric], hnsw_config=graph),
        optimizers=qe.EdgeOptimizersConfig(indexing_threshold=1),
    )


_KILOBYTES = 10_000  # below which the engine searches every vector; its own default


def _indexes(spec: CollectionSpec) -> Iterator[tuple[str, Any]]:
    """Payload indexes of a collection: what they narrow is what the conditions mean without them."""
    whole = qe.IntegerIndexParams(lookup=True, range=True)
    if spec.expiry:
        yield "_vk_expires", whole
    for n, kind in enumerate(spec.fields.values()):
        key = f"_vk_f{n}"
        if getattr(kind, "__origin__", None) is list:
            yield key, qe.KeywordIndexParams()
        elif kind is str:
            yield key, qe.KeywordIndexParams(prefix=True)
            yield f"{key}p", whole
        else:
            yield key, qe.FloatIndexParams() if kind is float else whole
    if spec.text:
        yield (
            "_vk_words",
            qe.TextIndexParams(tokenizer=qe.TokenizerType.Whitespace, lowercase=False, scoring=True),
        )


# --------------------------------------------------------------------------------------------- the engine


class Edge:
    """An open directory of shards; `temporary` ones go with it."""

    shared = False

    def __init__(self, path: Path, shown: str, options: QdrantOptions, runtime: Runtime, *, temporary: bool) -> None:
        self.shown = shown
        self._runtime = runtime
        self._temporary = path if temporary else None
        self._pid = os.getpid()
        self._shards: dict[str, Any] = {}
        self._specs: dict[str, CollectionSpec] = {}
        self._opening = threading.RLock()
        self._locks: dict[str, AbstractAsyncContextManager[Any]] = {}
        self._closed = False
        self._home = Home(
            path, read_only=False, shown=shown, options=LocalOptions(lock_timeout=options.lock_timeout), format=FORMAT
        )

    @property
    def native(self) -> Mapping[str, Any]:
        """The engine's open shards by physical name."""
        return self._shards

    async def _do(self, act: Callable[[], T]) -> T:
        def acting() -> T:
            if self._closed:
                raise Closed(f"{self.shown} was closed; connect again")
            if os.getpid() != self._pid:
                raise Closed(f"{self.shown} was opened before this process was forked; connect again in the child")
            with self._mapped():
                return act()

        return await self._runtime.offload(acting)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """The engine raises bare exceptions; what a call of ours cannot have caused is the directory's."""
        try:
            yield
        except (ValueError, TypeError, AttributeError, KeyError):
            raise
        except Exception as error:
            if type(error) is not Exception:
                raise
            said = str(error)
            if "not initialized" in said:
                raise Closed(f"{self.shown} was closed; connect again") from error
            if "No space left" in said or "Input/output" in said:
                raise Unavailable(f"{self.shown}: {said}") from error
            raise Corrupt(
                f"{self.shown}: the engine cannot go on: {said}; restore the directory from a backup"
            ) from error

    # ------------------------------------------------------------------------------------- collections

    async def names(self) -> list[str]:
        return await self._do(self._home.names)

    async def describe(self, name: str, *, read_only: bool) -> CollectionSpec:
        return await self._do(lambda: self._home.spec(name))

    async def foreign(self, name: str) -> Any:
        raise Unsupported(
            "an embedded Qdrant has no collections but its own; adopt from a server, or read the shard with qdrant_edge and upsert its rows"
        )

    async def publish(self, spec: CollectionSpec) -> None:
        raise Unsupported("an embedded Qdrant hides no collections")

    async def discard(self, spec: CollectionSpec) -> None:
        raise Unsupported("an embedded Qdrant hides no collections")

    async def create(self, spec: CollectionSpec, *, hidden: bool = False) -> CollectionSpec:
        def build(made: CollectionSpec, folder: Path) -> None:
            shard = qe.EdgeShard.create(str(folder), _config(made))
            try:
                for key, schema in _indexes(made):
                    shard.update(qe.UpdateOperation.create_field_index(key, schema))
                shard.flush()
            except BaseException:
                shard.close()
                raise
            fresh.append(shard)

        fresh: list[Any] = []

        def make() -> CollectionSpec:
            with self._opening:
                try:
                    made = self._home.add(spec, build)
                except BaseException:
                    for shard in fresh:
                        shard.close()
                    raise
                self._shards[made.physical] = fresh[0]
                return made

        return await self._do(make)

    async def drop(self, name: str) -> None:
        def remove() -> None:
            with self._opening:
                spec = self._home.spec(name)
                shard = self._shards.pop(spec.physical, None)
                if shard is not None:
                    shard.close()
                self._home.remove(name, spec.physical)

        await self._do(remove)

    def _shard(self, name: str) -> Any:
        shard = self._shards.get(name)
        if shard is not None:
            return shard
        with self._opening:
            if name not in self._home.physicals():
                raise NotFound(f"{self.shown}: the collection {name.rpartition('@')[0]!r} was dropped")
            if name not in self._shards:
                self._shards[name] = qe.EdgeShard.load(str(self._home.folder(name)))
            return self._shards[name]

    def changing(self, name: str) -> AbstractAsyncContextManager[Any]:
        with self._opening:
            return self._locks.setdefault(name, self._runtime.lock())

    # ------------------------------------------------------------------------------------- points

    async def upsert(
        self,
        name: str,
        points: Sequence[str],
        vectors: FloatArray,
        payloads: Sequence[Mapping[str, Any]],
        *,
        fresh: bool,
    ) -> None:
        def write() -> None:
            made = [qe.Point(*row) for row in zip(points, vectors, payloads, strict=True)]
            mode = qe.UpdateMode.InsertOnly if fresh else qe.UpdateMode.Upsert
            self._shard(name).update(qe.UpdateOperation.upsert_points(made, update_mode=mode))

        await self._do(write)

    async def overwrite(self, name: str, payloads: Mapping[str, Mapping[str, Any]], seen: Mapping[str, int]) -> None:
        def write() -> None:
            shard = self._shard(name)
            for point, payload in payloads.items():
                shard.update(qe.UpdateOperation.overwrite_payload([point], payload))

        await self._do(write)

    async def retrieve(
        self, name: str, points: Sequence[str], *, vectors: bool = False, keys: Sequence[str] | None = None
    ) -> list[Row]:
        def read() -> list[Row]:
            return [
                _row(found, vectors) for found in self._shard(name).retrieve(list(points), _included(keys), vectors)
            ]

        return await self._do(read)

    async def search(self, name: str, searches: Sequence[Search]) -> list[list[Row]]:
        def look() -> list[list[Row]]:
            shard = self._shard(name)
            if len(searches) == 1:
                answers = [shard.query(_request(searches[0]))]
            else:
                answers = shard.query_batch(qe.QueryBatchRequest([_request(search) for search in searches]))
            return [
                [_row(found, search.vectors, found.score) for found in answer]
                for search, answer in zip(searches, answers, strict=True)
            ]

        return await self._do(look)

    async def scroll(
        self,
        name: str,
        where: Condition | None,
        limit: int,
        start: str | int | None,
        *,
        vectors: bool | Sequence[str],
        keys: Sequence[str] | None = None,
    ) -> tuple[list[Row], str | int | None]:
        def read() -> tuple[list[Row], str | int | None]:
            request = qe.ScrollRequest(
                offset=start,
                limit=limit,
                filter=engine_filter(where),
                with_payload=_included(keys),
                with_vector=bool(vectors),
            )
            found, following = self._shard(name).scroll(request)
            return [_row(row, bool(vectors)) for row in found], None if following is None else str(following)

        return await self._do(read)

    async def count(self, name: str, where: Condition | None) -> int:
        return await self._do(
            lambda: int(self._shard(name).count(qe.CountRequest(filter=engine_filter(where), exact=True)))
        )

    async def delete(self, name: str, where: Condition) -> None:
        await self._do(
            lambda: self._shard(name).update(qe.UpdateOperation.delete_points_by_filter(engine_filter(where)))
        )

    async def size(self, name: str) -> Size:
        def look() -> Size:
            info = self._shard(name).info()
            folder = self._home.folder(name)
            stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            return Size(info.points_count, info.indexed_vectors_count, {"on disk": stored})

        return await self._do(look)

    async def optimize(self, name: str) -> None:
        def work() -> None:
            shard = self._shard(name)
            shard.optimize()
            shard.flush()

        await self._do(work)

    async def close(self) -> None:
        with self._opening:
            if self._closed:
                return
            self._closed = True
            if os.getpid() != self._pid:
                return
            for shard in self._shards.values():
                shard.close()
            self._shards.clear()
            self._home.close()
            if self._temporary is not None:
                shutil.rmtree(self._temporary, ignore_errors=True)


def _row(found: Any, vectors: bool, score: float | None = None) -> Row:
    return Row(str(found.id), found.payload or {}, found.vector if vectors else None, score)


def _request(search: Search) -> Any:
    query = qe.TextQuery("_vk_words", search.text) if search.text is not None else qe.Query.Nearest(search.vector)
    return qe.QueryRequest(
        query=query,
        filter=engine_filter(search.where),
        limit=search.limit,
        params=qe.SearchParams(hnsw_ef=search.ef, exact=search.exact),
        with_vector=search.vectors,
        with_payload=_included(search.keys),
    )


def open_edge(path: str, shown: str, options: QdrantOptions, runtime: Runtime) -> Edge:
    """Open a directory, or a new one of our own where the path is empty, which close() removes."""
    if path:
        return Edge(Path(path), shown, options, runtime, temporary=False)
    return Edge(Path(tempfile.mkdtemp(prefix="vectorkit-qdrant-")), shown, options, runtime, temporary=True)
