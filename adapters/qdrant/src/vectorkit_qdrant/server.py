"""A Qdrant server, through its official client of either colour: one call, one request.

Generations are never given twice: a point of the collection `vk-control` remembers those of a name that were dropped.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import httpx
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from vectorkit.adapter import Target
from vectorkit.errors import (
    AlreadyExists,
    Ambiguous,
    ConfigError,
    Corrupt,
    DeadlineExceeded,
    NotFound,
    RateLimited,
    Unavailable,
    Unsupported,
    VectorkitError,
)
from vectorkit.runtime import Runtime
from vectorkit.types import HNSW, LAYOUT, CollectionSpec, FloatArray
from vectorkit_qdrant.convert import DISTANCES, point_id
from vectorkit_qdrant.engine import Row, Search, Size
from vectorkit_qdrant.filters import Condition, as_filter
from vectorkit_qdrant.options import QdrantOptions

CONTROL = "vk-control"
AT_ONCE = 8  # requests that look at collections at the same time


# --------------------------------------------------------------------------------------------- errors


def translated(error: Exception, shown: str) -> VectorkitError:
    """The client's errors as ours."""
    if isinstance(error, ResourceExhaustedResponse):
        return RateLimited(f"{shown} asks for fewer requests", retry_after=float(error.retry_after_s))
    if isinstance(error, UnexpectedResponse):
        return _refused(error, shown)
    cause = getattr(error, "source", None) or error.__cause__
    if isinstance(cause, httpx.TimeoutException):
        return DeadlineExceeded(f"{shown} did not answer in time; a write may have landed")
    if isinstance(cause, httpx.LocalProtocolError):  # which quotes headers
        return Unavailable(f"{shown} cannot be asked: the request is none that HTTP takes")
    return Unavailable(f"{shown} cannot be reached: {type(cause or error).__name__}")


def _refused(error: UnexpectedResponse, shown: str) -> VectorkitError:
    told = _told(error)
    match error.status_code:
        case 401 | 403:
            return ConfigError(f"{shown} refused the credentials; give the profile's api_key")
        case 404:
            return NotFound(f"{shown}: {told}")
        case 408 | 504:
            return DeadlineExceeded(f"{shown}: {told}")
        case 409:
            return AlreadyExists(f"{shown}: {told}")
        case 400 | 413 | 422:
            return Unsupported(f"{shown} refused the request: {told}")
        case _:
            return Unavailable(f"{shown} failed: {told}")


def _told(error: UnexpectedResponse) -> str:
    try:
        said = json.loads(error.content)["status"]["error"]
    except (ValueError, KeyError, TypeError):
        said = error.content.decode("utf-8", "replace")
    return str(said)[:200]


def _may_have_landed(error: Exception) -> bool:
    """Whether a request that failed so may have been carried out."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in {408, 500, 502, 504}
    cause = getattr(error, "source", None) or error.__cause__
    return not isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.LocalProtocolError)


# --------------------------------------------------------------------------------------------- what is sent


def _filter(condition: Condition | None) -> Any:
    return None if condition is None else models.Filter.model_validate(as_filter(condition))


def _payload(keys: Sequence[str] | None) -> Any:
    return True if keys is None else list(keys)


def _request(search: Search) -> Any:
    if search.text is not None:
        query: Any = {"text": {"query": search.text}}
    else:
        assert search.vector is not None
        query = search.vector.tolist()
    return models.QueryRequest.model_validate(
        {
            "query": query,
            "using": None if search.text is None else "_vk_words",
            "filter": None if search.where is None else as_filter(search.where),
            "limit": search.limit,
            "params": {"hnsw_ef": search.ef, "exact": search.exact},
            "with_vector": search.vectors,
            "with_payload": _payload(search.keys),
        }
    )


def _indexes(spec: CollectionSpec) -> Iterator[tuple[str, Any]]:
    """Payload indexes of a collection: what they narrow is what the conditions mean without them."""
    whole = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=True)
    word = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD)
    if spec.expiry:
        yield "_vk_expires", whole
    for n, kind in enumerate(spec.fields.values()):
        key = f"_vk_f{n}"
        if getattr(kind, "__origin__", None) is list:
            yield key, word
        elif kind is str:
            yield key, models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, prefix=True)
            yield f"{key}p", whole
        else:
            yield key, models.FloatIndexParams(type=models.FloatIndexType.FLOAT) if kind is float else whole
    if spec.text:
        yield (
            "_vk_words",
            models.TextIndexParams.model_validate(
                {"type": "text", "tokenizer": "whitespace", "lowercase": False, "scoring": True}
            ),
        )


# --------------------------------------------------------------------------------------------- the engine


class Server:
    """A server by its URL."""

    rows_per_write: int | None = None

    def __init__(self, target: Target, options: QdrantOptions, runtime: Runtime) -> None:
        self.shown = target.shown
        self._runtime = runtime
        secure = target.scheme == "qdrant+https"
        host = f"[{target.host}]" if ":" in target.host else target.host
        port = target.port or (443 if secure else 6333)
        made: type[Any] = AsyncQdrantClient if runtime.colour == "async" else QdrantClient
        self.native: Any = made(
            url=f"http{'s' if secure else ''}://{host}:{port}",
            port=port,
            api_key=target.secret or None,
            check_compatibility=False,
        )

    async def _ask(self, verb: str, *arguments: Any, **named: Any) -> Any:
        try:
            return await self._runtime.call(getattr(self.native, verb), *arguments, **named)
        except (UnexpectedResponse, ResponseHandlingException, ResourceExhaustedResponse) as error:
            raise translated(error, self.shown) from error

    # ------------------------------------------------------------------------------------- collections

    async def _found(self, name: str | None = None) -> dict[str, dict[str, Any]]:
        """The labels of our collections, of one logical name or all, by physical name."""
        listed = (await self._ask("get_collections")).collections
        wanted = [
            one.name
            for one in listed
            if one.name.rpartition("@")[2].isdigit() and name in {None, one.name.rpartition("@")[0]}
        ]
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(wanted), AT_ONCE):
            part = wanted[start : start + AT_ONCE]
            for physical, labels in zip(part, await self._runtime.gather(*map(self._labels, part)), strict=True):
                if labels is not None and "_vk_spec" in labels:
                    found[physical] = labels
        return found

    async def _labels(self, physical: str) -> dict[str, Any] | None:
        try:
            told = await self._ask("get_collection", physical)
        except NotFound:  # dropped since it was listed
            return None
        return dict(told.config.metadata or {})

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

    async def specs(self) -> dict[str, CollectionSpec]:
        best: dict[str, CollectionSpec] = {}
        for physical, labels in (await self._found()).items():
            if labels.get("_vk_state") != "published":
                continue
            spec = self._spec(physical, labels)
            if spec.name not in best or best[spec.name].generation < spec.generation:
                best[spec.name] = spec
        return best

    async def create(self, spec: CollectionSpec) -> CollectionSpec:
        """The name of the next generation is the same for all who make it, so Qdrant lets one of them.

        It is published once its indexes are there: a row that came before them would be found all the same, only slower.
        """
        there = await self._found(spec.name)
        if any(labels.get("_vk_state") == "published" for labels in there.values()):
            raise AlreadyExists(f"{self.shown} has a collection {spec.name!r} already")
        generation = max([await self._dropped(spec.name), *(int(name.rpartition("@")[2]) for name in there)]) + 1
        made = CollectionSpec.from_json({**spec.to_json(), "generation": generation})
        index = made.index if isinstance(made.index, HNSW) else None
        labels = {
            "_vk_layout": LAYOUT,
            "_vk_spec": json.dumps(made.to_json(), ensure_ascii=False, separators=(",", ":")),
            "_vk_state": "published",
        }
        await self._ask(
            "create_collection",
            made.physical,
            vectors_config=models.VectorParams(size=made.dimension, distance=models.Distance(DISTANCES[made.metric])),
            hnsw_config=models.HnswConfigDiff(m=0)
            if index is None
            else models.HnswConfigDiff(m=index.m, ef_construct=index.ef_construction),
            metadata=labels,
        )
        for key, schema in _indexes(made):
            await self._ask("create_payload_index", made.physical, key, field_schema=schema, wait=True)
        return made

    async def _dropped(self, name: str) -> int:
        try:
            rows = await self._ask("retrieve", CONTROL, [point_id(name)], with_payload=True)
        except NotFound:
            return 0
        return int(rows[0].payload["_vk_generation"]) if rows else 0

    async def drop(self, name: str) -> None:
        there = await self._found(name)
        if not any(labels.get("_vk_state") == "published" for labels in there.values()):
            raise NotFound(f"{self.shown} has no collection {name!r}")
        highest = max(int(physical.rpartition("@")[2]) for physical in there)
        await self._remember(name, highest)
        for physical in there:
            await self._ask("delete_collection", physical)

    async def _remember(self, name: str, generation: int) -> None:
        """Note the generation as dropped before it is."""
        note = models.PointStruct(
            id=point_id(name), vector=[1.0], payload={"_vk_name": name, "_vk_generation": generation}
        )
        try:
            await self._ask("upsert", CONTROL, [note], wait=True)
        except NotFound:
            with suppress(AlreadyExists):
                config = models.VectorParams(size=1, distance=models.Distance.DOT)
                await self._ask("create_collection", CONTROL, vectors_config=config, metadata={"_vk_layout": LAYOUT})
            await self._ask("upsert", CONTROL, [note], wait=True)

    @asynccontextmanager
    async def _free(self) -> AsyncIterator[None]:
        yield

    def changing(self, name: str) -> AbstractAsyncContextManager[Any]:
        return self._free()

    # ------------------------------------------------------------------------------------- points

    async def upsert(
        self, name: str, points: Sequence[str], vectors: FloatArray, payloads: Sequence[Mapping[str, Any]], *, fresh: bool
    ) -> None:
        batch = models.Batch(ids=list(points), vectors=vectors.tolist(), payloads=list(payloads))
        mode = models.UpdateMode.INSERT_ONLY if fresh else None
        try:
            await self._runtime.call(self.native.upsert, name, batch, wait=True, update_mode=mode)
        except (UnexpectedResponse, ResponseHandlingException, ResourceExhaustedResponse) as error:
            if fresh and _may_have_landed(error):
                raise Ambiguous(
                    f"{self.shown}: the reply to an insert was lost; get() tells whether the rows are there"
                ) from error
            raise translated(error, self.shown) from error

    async def overwrite(self, name: str, payloads: Mapping[str, Mapping[str, Any]], seen: Mapping[str, int]) -> None:
        operations = [
            models.OverwritePayloadOperation(
                overwrite_payload=models.SetPayload(
                    payload=dict(payload),
                    filter=_filter({"must": [{"has_id": [point]}, {"key": "_vk_seq", "match": {"value": seen[point]}}]}),
                )
            )
            for point, payload in payloads.items()
        ]
        await self._ask("batch_update_points", name, operations, wait=True)

    async def retrieve(
        self, name: str, points: Sequence[str], *, vectors: bool = False, keys: Sequence[str] | None = None
    ) -> list[Row]:
        found = await self._ask("retrieve", name, list(points), with_payload=_payload(keys), with_vectors=vectors)
        return [_row(row, vectors) for row in found]

    async def search(self, name: str, searches: Sequence[Search]) -> list[list[Row]]:
        answers = await self._ask("query_batch_points", name, [_request(search) for search in searches])
        return [
            [_row(found, search.vectors, found.score) for found in answer.points]
            for search, answer in zip(searches, answers, strict=True)
        ]

    async def scroll(
        self, name: str, where: Condition | None, limit: int, start: str | None, *, vectors: bool, keys: Sequence[str] | None = None
    ) -> tuple[list[Row], str | None]:
        found, following = await self._ask(
            "scroll", name, scroll_filter=_filter(where), limit=limit, offset=start,
            with_payload=_payload(keys), with_vectors=vectors,
        )  # fmt: skip
        return [_row(row, vectors) for row in found], None if following is None else str(following)

    async def count(self, name: str, where: Condition | None) -> int:
        return int((await self._ask("count", name, count_filter=_filter(where), exact=True)).count)

    async def delete(self, name: str, where: Condition) -> None:
        await self._ask("delete", name, models.FilterSelector(filter=_filter(where)), wait=True)

    async def size(self, name: str) -> Size:
        told = await self._ask("get_collection", name)
        return Size(int(told.points_count or 0), int(told.indexed_vectors_count or 0))

    async def optimize(self, name: str) -> None:
        """A server optimizes by itself; that the collection is there is all there is to see to."""
        await self._ask("get_collection", name)

    async def close(self) -> None:
        await self._runtime.call(self.native.close)


def _row(found: Any, vectors: bool, score: float | None = None) -> Row:
    return Row(str(found.id), found.payload or {}, found.vector if vectors else None, score)
