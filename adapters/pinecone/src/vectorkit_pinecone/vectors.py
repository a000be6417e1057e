"""The classic vector API: an index of vectors with metadata, and no keyword leg. https://docs.pinecone.io/guides/legacy/vectors-api"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from vectorkit.errors import Unsupported
from vectorkit.floats import shortened
from vectorkit.types import FloatArray
from vectorkit_pinecone.client import Client
from vectorkit_pinecone.convert import FRAME, Row, Stored
from vectorkit_pinecone.filters import Where
from vectorkit_pinecone.wire import Found, Patch, Place, Written

LONGEST_URL = 6_000  # bytes of ids; a fetch carries them in its URL
MOST_PAGE = 1_000


class Vectors:
    """A classic index."""

    words = False

    def __init__(self, client: Client) -> None:
        self._client = client

    def schema(self, dimension: int, metric: str) -> dict[str, Any]:
        return {"fields": {"_values": {"type": "dense_vector", "dimension": dimension, "metric": metric}}}

    async def upsert(self, at: Place, rows: Sequence[Stored]) -> Written:
        values = shortened(np.array([row.values for row in rows])).tolist()
        vectors = [
            {"id": row.key, "values": numbers, "metadata": row.fields}
            for row, numbers in zip(rows, values, strict=True)
        ]
        return _written(await self._ask(at, "upsert", vectors=vectors))

    def size(self, patch: Patch) -> int:
        return len(orjson.dumps(patch.after())) + 14 * len(patch.row.vector) + len(patch.row.key) + FRAME

    async def patch(self, at: Place, patches: Sequence[Patch]) -> Written:
        """An update of this API cannot remove a field, so rows are written whole, as they were read."""
        values = shortened(np.array([patch.row.vector for patch in patches], np.float32)).tolist()
        vectors = [
            {"id": patch.row.key, "values": numbers, "metadata": patch.after()}
            for patch, numbers in zip(patches, values, strict=True)
        ]
        return _written(await self._ask(at, "upsert", vectors=vectors))

    async def fetch(self, at: Place, keys: Sequence[str], fields: Sequence[str], *, vectors: bool) -> list[Row]:
        found: list[Row] = []
        for part in _urls(keys):
            reply = await self._ask(at, "fetch", ids=part)
            found += map(_row, reply.vectors.values())
        return found

    async def page(
        self, at: Place, where: Where, limit: int, token: str | None, fields: Sequence[str], *, vectors: bool
    ) -> tuple[list[Row], str | None]:
        reply = await self._ask(
            at, "fetch_by_metadata", filter=where, limit=min(limit, MOST_PAGE), pagination_token=token
        )
        following = reply.pagination.next if reply.pagination is not None else None
        return list(map(_row, reply.vectors.values())), following or None

    async def search(
        self, at: Place, vector: FloatArray, k: int, where: Where | None, fields: Sequence[str], *, vectors: bool
    ) -> Found:
        reply = await self._ask(
            at,
            "query",
            vector=shortened(vector).tolist(),
            top_k=k,
            filter=where,
            include_values=vectors,
            include_metadata=bool(fields),
        )
        info = reply.response_info
        rows = list(map(_row, reply.matches))
        return Found(rows, [one.score for one in reply.matches], None if info is None else info.lsn_reconciled)

    async def keyword(
        self, at: Place, words: Sequence[str], k: int, where: Where | None, fields: Sequence[str], *, vectors: bool
    ) -> Found:
        raise Unsupported(
            "a classic index of Pinecone has no keyword search; make the collection with PineconeOptions(api='documents')"
        )

    async def delete(self, at: Place, keys: Sequence[str]) -> Written:
        return _written(await self._ask(at, "delete", ids=list(keys)))

    async def delete_where(self, at: Place, where: Where) -> Written:
        return _written(await self._ask(at, "delete", filter=where))

    async def clear(self, at: Place) -> Written:
        return _written(await self._ask(at, "delete", delete_all=True))

    async def _ask(self, at: Place, verb: str, **named: Any) -> Any:
        return await self._client.data(at.host, verb, namespace=at.namespace, **named)


def _urls(keys: Sequence[str]) -> list[list[str]]:
    """Ids in lists that a URL takes each."""
    found: list[list[str]] = []
    size = LONGEST_URL
    for key in keys:
        length = 3 * len(key) + 5  # every character may be percent-encoded
        if size + length > LONGEST_URL or len(found[-1]) >= MOST_PAGE:
            found.append([])
            size = 0
        found[-1].append(key)
        size += length
    return found


def _row(vector: Any) -> Row:
    values = np.asarray(vector.values, np.float32) if vector.values else None
    return Row(vector.id, vector.metadata or {}, values, sparse=vector.sparse_values is not None)


def _written(reply: Any) -> Written:
    info = getattr(reply, "response_info", None)
    return Written(None if info is None else info.lsn_committed)
