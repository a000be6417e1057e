"""A Qdrant server, through its official client: one call, one request, but for writes too large for one.

Generations are never given twice: a point of the collection `vk-control` remembers those of a name that were dropped.
"""

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from itertools import pairwise
from typing import Any

from qdrant_client import models

from vectorkit.errors import (
    AlreadyExists,
    ConfigError,
    Corrupt,
    InvalidRecord,
    NotFound,
    PartialFailure,
    Unavailable,
    Unsupported,
    VectorkitError,
)
from vectorkit.floats import shortened
from vectorkit.requests import cut
from vectorkit.runtime import Runtime, heavy
from vectorkit.types import HNSW, LAYOUT, CollectionSpec, Flat, FloatArray
from vectorkit_qdrant.adopt import CONTROL
from vectorkit_qdrant.client import Client
from vectorkit_qdrant.convert import DISTANCES, point_id
from vectorkit_qdrant.engine import Row, Search, Size
from vectorkit_qdrant.filters import Condition, as_filter
from vectorkit_qdrant.options import QdrantOptions, codes_of, kilobytes

AT_ONCE = 8  # requests that look at collections at the same time
BODY = 4 * 2**20  # bytes of a request, of which a server takes 32 MB; to encode more holds an event loop for too long
LARGEST = 32 * 2**20 - 4_096  # bytes of the one row of a request
NUMBER = 16  # bytes that a number may take in JSON
ESCAPED = 6  # and a character
STALE = 3_600  # seconds after which what was begun and not published is nobody's

# --------------------------------------------------------------------------------------------- what is sent


def _filter(condition: Condition | None) -> Any:
    return None if condition is None else models.Filter.model_validate(as_filter(condition))


def _payload(keys: Sequence[str] | None) -> Any:
    return True if keys is None else list(keys)


def _indexes(spec: CollectionSpec, tenant_field: str | None) -> Iterator[tuple[str, Any]]:
    """Payload indexes of a collection: what they narrow is what the conditions mean without them."""
    whole = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=True)
    word = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD)
    if spec.expiry:
        yield "_vk_expires", whole
    for n, (name, kind) in enumerate(spec.fields.items()):
        key = f"_vk_f{n}"
        if getattr(kind, "__origin__", None) is list:
            yield key, word
        elif kind is str:
            shared = True if name == tenant_field else None
            yield (
                key,
                models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, prefix=True, is_tenant=shared),
            )
            yield f"{key}p", whole
        else:
            yield key, models.FloatIndexParams(type=models.FloatIndexType.FLOAT) if kind is float else whole
    if spec.text:
        text = {"type": "text", "tokenizer": "whitespace", "lowercase": False, "scoring": True}
        yield "_vk_words", models.TextIndexParams.model_validate(text)


def _quantization(kind: str | None, *, in_ram: bool) -> Any:
    match kind:
        case "scalar":
            codes = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=in_ram)
            return models.ScalarQuantization(scalar=codes)
        case "product":
            return models.ProductQuantization(
                product=models.ProductQuantizationConfig(compression=models.CompressionRatio.X16, always_ram=in_ram)
            )
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=in_ram))
        case "turbo":
            return models.TurboQuantization(turbo=models.TurboQuantQuantizationConfig(always_ram=in_ram))
    return None


# --------------------------------------------------------------------------------------------- the engine


class _Once(list[float]):
    """A vector that is not copied number by number: the client makes a deep copy of each request of a batch."""

    def __deepcopy__(self, memo: Any) -> "_Once":
        return self


class Server:
    """Collections of a server. What is read in order to be written may change in between, and is looked at again after."""

    shared = True

    def __init__(self, client: Client, options: QdrantOptions, runtime: Runtime) -> None:
        self.shown = client.shown
        self.native = client.native
        self._ask = client.ask
        self._client = client
        self._options = options
        self._runtime = runtime
        self._reading: dict[str, Any] = {"consistency": _consistency(options)}
        self._writing: dict[str, Any] = {"wait": True, "ordering": _ordering(options)}
        self._sharded: dict[str, Any] = {}
        if options.shard_key is not None:
            self._sharded["shard_key_selector"] = options.shard_key

    # ------------------------------------------------------------------------------------- names

    async def _listed(self, logical: str | None = None) -> list[str]:
        """The names of the form of ours, whosever they are, of one logical name or all."""
        names = [one.name for one in (await self._ask("get_collections")).collections]
        return [
            name for name in names if name.rpartition("@")[2].isdecimal() and logical in {None, name.rpartition("@")[0]}
        ]

    async def _looked_at(self, names: Sequence[str]) -> dict[str, Any]:
        """What is told of those that are ours."""
        found: dict[str, Any] = {}
        for start in range(0, len(names), AT_ONCE):
            part = names[start : start + AT_ONCE]
            told = zip(part, await self._runtime.gather(*map(self._told, part)), strict=True)
            found.update({name: one for name, one in told if one is not None and "_vk_spec" in _labels(one)})
        return found

    async def _found(self, logical: str | None = None) -> dict[str, Any]:
        """What is told of our collections, by physical name."""
        return await self._looked_at(await self._listed(logical))

    async def _told(self, physical: str) -> Any:
        try:
            return await self._ask("get_collection", physical)
        except NotFound:  # dropped since it was listed
            return None

    def _spec(self, physical: str, labels: Mapping[str, Any]) -> CollectionSpec:
        if labels.get("_vk_layout") != LAYOUT:
            raise Unsupported(
                f"{self.shown}: {physical!r} has layout {labels.get('_vk_layout')!r}; this version reads layout {LAYOUT}"
            )
        try:
            spec = CollectionSpec.from_json(json.loads(labels["_vk_spec"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Corrupt(
                f"{self.shown}: the spec of {physical!r} cannot be read ({error}); drop the collection with Qdrant's own client"
            ) from error
        if spec.physical != physical:
            raise Corrupt(f"{self.shown}: {physical!r} carries the spec of {spec.physical!r}")
        return spec

    async def names(self) -> list[str]:
        found = await self._found()
        return sorted({physical.rpartition("@")[0] for physical, told in found.items() if _is_published(told)})

    async def describe(self, name: str, *, read_only: bool) -> CollectionSpec:
        """Payload indexes that are missing are made: who created the collection may have been stopped before."""
        found = {physical: told for physical, told in (await self._found(name)).items() if _is_published(told)}
        if not found:
            raise NotFound(f"{self.shown} has no collection {name!r}")
        physical = max(found, key=_generation)
        told = found[physical]
        spec = self._spec(physical, _labels(told))
        self._check_shape(spec, told)
        if not read_only:
            await self._sharding(physical, told)
            await self._index(spec, told.payload_schema or {})
        return spec

    def _check_shape(self, spec: CollectionSpec, told: Any) -> None:
        """That the vectors are still of the spec: its labels are anybody's to copy."""
        vectors = told.config.params.vectors
        size, distance = getattr(vectors, "size", None), getattr(getattr(vectors, "distance", None), "value", None)
        if (size, distance) != (spec.dimension, DISTANCES[spec.metric]):
            raise Corrupt(
                f"{self.shown}: {spec.physical!r} holds {distance} vectors of {size} numbers, its spec says {spec.dimension} by "
                f"{spec.metric}; drop the collection with Qdrant's own client"
            )

    async def _sharding(self, physical: str, told: Any) -> None:
        """The shards of our key. ConfigError where the collection has none."""
        key = self._options.shard_key
        if key is None:
            return
        if told.config.params.sharding_method != models.ShardingMethod.CUSTOM:
            raise ConfigError(
                f"{self.shown}: {physical!r} was made without shard keys; leave shard_key= out, or copy it into a new collection"
            )
        with suppress(Unsupported, AlreadyExists):  # it is there
            await self._ask("create_shard_key", physical, key)

    async def _index(self, spec: CollectionSpec, there: Mapping[str, Any]) -> None:
        for key, schema in _indexes(spec, self._options.tenant_field):
            if key not in there:
                await self._ask("create_payload_index", spec.physical, key, field_schema=schema, **self._writing)

    # ------------------------------------------------------------------------------------- collections

    async def create(self, spec: CollectionSpec, *, hidden: bool = False) -> CollectionSpec:
        """The name of the next generation is the same for all who make it, so Qdrant lets one of them.

        It is published before its indexes are there, which `describe` would make. hidden: until `publish`.
        """
        while True:
            made = await self._next(spec)
            labels = self._made_labels(made, hidden=hidden)
            await self._ask("create_collection", made.physical, again=False, metadata=labels, **self._shape(made))
            if await self._dropped(spec.name) < made.generation:
                break
            await self._ask("delete_collection", made.physical)  # another had made and dropped it since we looked
        try:
            if self._options.shard_key is not None:
                await self._ask("create_shard_key", made.physical, self._options.shard_key)
            await self._index(made, {})
        except VectorkitError:
            with suppress(VectorkitError):
                await self._ask("delete_collection", made.physical)
            raise
        return made

    async def _next(self, spec: CollectionSpec) -> CollectionSpec:
        """The spec with the generation that is the next. AlreadyExists."""
        names = await self._listed(spec.name)
        there = await self._looked_at(names)
        if any(map(_is_published, there.values())):
            raise AlreadyExists(f"{self.shown} has a collection {spec.name!r} already")
        for physical, told in there.items():
            if time.time() - _begun(told) < STALE:
                raise AlreadyExists(
                    f"{self.shown}: {spec.name!r} is being adopted as {physical!r}; wait for it, or drop that with Qdrant's own client"
                )
            await self._ask("delete_collection", physical)  # of an adoption that was cut short
        generation = max([await self._dropped(spec.name), *map(_generation, names)]) + 1
        return CollectionSpec.from_json({**spec.to_json(), "generation": generation})

    def _made_labels(self, spec: CollectionSpec, *, hidden: bool) -> dict[str, Any]:
        document = json.dumps(spec.to_json(), ensure_ascii=False, separators=(",", ":"))
        labels = {"_vk_layout": LAYOUT, "_vk_spec": document, "_vk_state": "hidden" if hidden else "published"}
        return {**labels, "_vk_begun": int(time.time())} if hidden else labels

    def _shape(self, spec: CollectionSpec) -> dict[str, Any]:
        options = self._options
        index = spec.index if isinstance(spec.index, HNSW) else HNSW()
        graph = models.HnswConfigDiff(m=0, on_disk=options.on_disk_index)
        optimizers = None
        codes = None
        if not isinstance(spec.index, Flat):
            threshold = kilobytes(index.full_scan_threshold, spec.dimension)
            graph = models.HnswConfigDiff(
                m=index.m,
                ef_construct=max(4, index.ef_construction),
                full_scan_threshold=threshold,
                on_disk=options.on_disk_index,
            )
            optimizers = models.OptimizersConfigDiff(indexing_threshold=threshold)
            codes = _quantization(codes_of(spec, options), in_ram=options.quantized_in_ram)
        return {
            "vectors_config": models.VectorParams(
                size=spec.dimension, distance=models.Distance(DISTANCES[spec.metric]), on_disk=options.on_disk_vectors
            ),
            "hnsw_config": graph,
            "optimizers_config": optimizers,
            "quantization_config": codes,
            "on_disk_payload": options.on_disk_payload,
            "sharding_method": None if options.shard_key is None else models.ShardingMethod.CUSTOM,
            **self._spread(),
        }

    def _spread(self) -> dict[str, Any]:
        options = self._options
        return {
            "shard_number": options.shard_number,
            "replication_factor": options.replication_factor,
            "write_consistency_factor": options.write_consistency_factor,
        }

    async def publish(self, spec: CollectionSpec) -> None:
        """Let a hidden collection be found."""
        await self._ask("update_collection", spec.physical, metadata={"_vk_state": "published"})

    async def discard(self, spec: CollectionSpec) -> None:
        """Remove a hidden collection."""
        await self._ask("delete_collection", spec.physical)

    async def _dropped(self, name: str) -> int:
        """The highest generation of a name that was dropped, 0 for none."""
        named = {"key": "_vk_name", "match": {"value": name}}
        try:
            rows, _ = await self._ask("scroll", CONTROL, scroll_filter=_filter(named), limit=1_000, with_payload=True)
        except NotFound:
            return 0
        found = [row.payload.get("_vk_generation") for row in rows if row.payload]
        return max((one for one in found if isinstance(one, int)), default=0)

    async def drop(self, name: str) -> None:
        there = await self._found(name)
        if not any(map(_is_published, there.values())):
            raise NotFound(f"{self.shown} has no collection {name!r}")
        await self._remember(name, max(map(_generation, there)))
        for physical in there:
            await self._ask("delete_collection", physical)

    async def _remember(self, name: str, generation: int) -> None:
        """Note the generation as dropped before it is; notes of lower ones then say nothing more."""
        note = models.PointStruct(
            id=point_id(f"{name}@{generation}"),
            vector=[1.0],
            payload={"_vk_name": name, "_vk_generation": generation},
        )
        try:
            await self._ask("upsert", CONTROL, [note], wait=True)
        except NotFound:
            with suppress(AlreadyExists):
                config = models.VectorParams(size=1, distance=models.Distance.DOT)
                spread = {**self._spread(), "shard_number": 1}
                await self._ask(
                    "create_collection", CONTROL, vectors_config=config, metadata={"_vk_layout": LAYOUT}, **spread
                )
            await self._ask("upsert", CONTROL, [note], wait=True)
        except Unsupported as error:
            raise Unsupported(
                f"{self.shown}: a collection {CONTROL!r} is there that is not vectorkit's, which keeps its notes under that name; "
                f"rename it ({error})"
            ) from error
        lower = {"key": "_vk_generation", "range": {"lt": generation}}
        older = {"must": [{"key": "_vk_name", "match": {"value": name}}, lower]}
        await self._ask("delete", CONTROL, models.FilterSelector(filter=_filter(older)), wait=True)

    @asynccontextmanager
    async def _free(self) -> AsyncIterator[None]:
        yield

    def changing(self, name: str) -> AbstractAsyncContextManager[Any]:
        return self._free()

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
        mode = models.UpdateMode.INSERT_ONLY if fresh else None
        each = NUMBER * vectors.shape[1]
        sizes = await heavy(self._runtime, len(points), lambda: [each + _bytes(payload) for payload in payloads])
        for at, size in enumerate(sizes):
            if size > LARGEST and each + len(json.dumps(payloads[at], ensure_ascii=False).encode()) > LARGEST:
                raise InvalidRecord("the row is larger than the 32 MB that Qdrant takes in a request", row=at)
        stops = cut(sizes, BODY)
        for start, stop in pairwise([0, *stops]):
            batch = await heavy(
                self._runtime, stop - start, partial(self._batch, points, vectors, payloads, slice(start, stop))
            )
            try:
                await self._ask(
                    "upsert", name, batch, inserting=fresh, update_mode=mode, **self._writing, **self._sharded
                )
            except VectorkitError as error:
                if not start:
                    raise
                failed = [str(payload["_vk_id"]) for payload in payloads[start:]]
                told = f"{start} rows were written, {len(failed)} were not: {error}"
                raise PartialFailure(told, written=start, failed=failed) from error

    def _batch(
        self, points: Sequence[str], vectors: FloatArray, payloads: Sequence[Mapping[str, Any]], part: slice
    ) -> Any:
        return models.Batch(
            ids=list(points[part]),
            vectors=self._numbers(vectors[part]).tolist(),
            payloads=list(map(dict, payloads[part])),
        )

    async def overwrite(self, name: str, payloads: Mapping[str, Mapping[str, Any]], seen: Mapping[str, int]) -> None:
        rows = list(payloads.items())
        start = 0
        for stop in cut([_bytes(payload) for _, payload in rows], BODY):
            operations = [
                models.OverwritePayloadOperation(
                    overwrite_payload=models.SetPayload(
                        payload=dict(payload),
                        filter=_filter(
                            {"must": [{"has_id": [point]}, {"key": "_vk_seq", "match": {"value": seen[point]}}]}
                        ),
                        shard_key=self._options.shard_key,
                    )
                )
                for point, payload in rows[start:stop]
            ]
            await self._ask("batch_update_points", name, operations, **self._writing)
            start = stop

    async def retrieve(
        self, name: str, points: Sequence[str], *, vectors: bool = False, keys: Sequence[str] | None = None
    ) -> list[Row]:
        found = await self._ask(
            "retrieve", name, list(points),
            with_payload=_payload(keys), with_vectors=vectors, **self._reading, **self._sharded,
        )  # fmt: skip
        return [_row(row, vectors) for row in found]

    async def search(self, name: str, searches: Sequence[Search]) -> list[list[Row]]:
        answers: list[Any] = []
        sizes = [0] if len(searches) == 1 else _sizes(searches)
        for stop in cut(sizes, BODY):
            part = searches[len(answers) : stop]
            found = await self._ask("query_batch_points", name, list(map(self._request, part)), **self._reading)
            if len(found) != len(part):
                raise Unavailable(f"{self.shown} answered, and not as Qdrant does ({len(found)} of {len(part)})")
            answers += found
        return [
            [_row(found, search.vectors, found.score) for found in answer.points]
            for search, answer in zip(searches, answers, strict=True)
        ]

    def _request(self, search: Search) -> Any:
        query = None if search.text is None else {"text": {"query": search.text}}
        rescored = {"rescore": True, "oversampling": search.oversampling}
        request = models.QueryRequest.model_validate(
            {
                "query": query,
                "using": None if search.text is None else "_vk_words",
                "filter": None if search.where is None else as_filter(search.where),
                "limit": search.limit,
                "params": None
                if search.text is not None
                else {"exact": True}
                if search.exact
                else {"hnsw_ef": search.ef, "quantization": rescored},
                "with_vector": search.vectors,
                "with_payload": _payload(search.keys),
                "shard_key": self._options.shard_key,
            }
        )
        if search.vector is not None:
            request.query = _Once(self._numbers(search.vector).tolist())
        return request

    def _numbers(self, vectors: FloatArray) -> Any:
        """Vectors as they are sent: JSON gets no more digits than float32 has."""
        return vectors if self._options.grpc else shortened(vectors)

    async def scroll(
        self,
        name: str,
        where: Condition | None,
        limit: int,
        start: str | int | None,
        *,
        vectors: bool,
        keys: Sequence[str] | None = None,
    ) -> tuple[list[Row], str | int | None]:
        found, following = await self._ask(
            "scroll", name, scroll_filter=_filter(where), limit=limit, offset=start,
            with_payload=_payload(keys), with_vectors=vectors, **self._reading, **self._sharded,
        )  # fmt: skip
        return [_row(row, vectors) for row in found], following

    async def count(self, name: str, where: Condition | None) -> int:
        told = await self._ask("count", name, count_filter=_filter(where), exact=True, **self._sharded)
        return int(told.count)

    async def delete(self, name: str, where: Condition) -> None:
        selector = models.FilterSelector(filter=_filter(where))
        await self._ask("delete", name, selector, **self._writing, **self._sharded)

    async def size(self, name: str) -> Size:
        told = await self._ask("get_collection", name)
        return Size(int(told.points_count or 0), int(told.indexed_vectors_count or 0))

    async def optimize(self, name: str) -> None:
        """A server builds by itself: begin again what a restart left lying (grey), and wait until nothing is left to do."""
        pause = 0.02
        while True:
            told = await self._ask("get_collection", name)
            match told.status:
                case models.CollectionStatus.GREEN:
                    return
                case models.CollectionStatus.RED:
                    raise Unavailable(f"{self.shown}: Qdrant cannot build {name!r}: {told.optimizer_status}")
                case models.CollectionStatus.GREY:
                    await self._ask("update_collection", name, optimizers_config=models.OptimizersConfigDiff())
            await self._runtime.sleep(pause)
            pause = min(2 * pause, 1.0)

    # ------------------------------------------------------------------------------------- others' collections

    async def foreign(self, name: str) -> Any:
        """What Qdrant tells of a collection that somebody else made. NotFound."""
        return await self._ask("get_collection", name)

    async def foreign_page(
        self, name: str, limit: int, start: str | int | None, *, vectors: bool | Sequence[str]
    ) -> tuple[list[Row], str | int | None]:
        found, following = await self._ask(
            "scroll", name, limit=limit, offset=start, with_payload=True, with_vectors=vectors, **self._reading
        )
        return [_row(row, True) for row in found], following

    async def close(self) -> None:
        await self._client.close()


# --------------------------------------------------------------------------------------------- parts


def _labels(told: Any) -> dict[str, Any]:
    return dict(told.config.metadata or {})


def _is_published(told: Any) -> bool:
    return bool(_labels(told).get("_vk_state") == "published")


def _begun(told: Any) -> float:
    begun = _labels(told).get("_vk_begun")
    return float(begun) if isinstance(begun, int | float) else 0.0


def _generation(physical: str) -> int:
    return int(physical.rpartition("@")[2])


def _bytes(payload: Mapping[str, Any]) -> int:
    """That a payload may take, at most."""
    strings = sum(len(value) for value in payload.values() if isinstance(value, str))
    lists = sum(len(one) + 4 for value in payload.values() if isinstance(value, list) for one in value)
    return ESCAPED * (strings + lists) + 40 * len(payload)


def _sizes(searches: Sequence[Search]) -> list[int]:
    """That searches may take; those of one query share their condition."""
    conditions = {id(search.where): search.where for search in searches}
    taken = {key: 0 if where is None else len(json.dumps(where)) for key, where in conditions.items()}
    return [
        NUMBER * len(() if search.vector is None else search.vector) + taken[id(search.where)] for search in searches
    ]


def _row(found: Any, vectors: bool, score: float | None = None) -> Row:
    return Row(str(found.id), found.payload or {}, found.vector if vectors else None, score)


def _consistency(options: QdrantOptions) -> Any:
    given = options.read_consistency
    return models.ReadConsistencyType(given) if isinstance(given, str) else given


def _ordering(options: QdrantOptions) -> Any:
    return None if options.write_ordering is None else models.WriteOrdering(options.write_ordering)
