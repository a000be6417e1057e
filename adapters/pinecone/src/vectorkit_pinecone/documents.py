"""The document API: an index with a schema, whose rows are documents. https://docs.pinecone.io/guides/get-started/documents-api"""

from collections.abc import Sequence
from typing import Any

import orjson

from vectorkit.types import FloatArray
from vectorkit_pinecone.client import Client
from vectorkit_pinecone.convert import VECTOR, WORDS, Row, Stored
from vectorkit_pinecone.filters import Where
from vectorkit_pinecone.wire import Found, Patch, Place, Written

# Declared also where no text is searched: on indexes with a dense field alone, filters were seen to find nothing.
_SEARCHED: dict[str, Any] = {"type": "string", "full_text_search": {"language": "en"}}


class Documents:
    """An index of documents."""

    words = True

    def __init__(self, client: Client) -> None:
        self._client = client

    def schema(self, dimension: int, metric: str) -> dict[str, Any]:
        dense = {"type": "dense_vector", "dimension": dimension, "metric": metric}
        return {"fields": {VECTOR: dense, WORDS: _SEARCHED}}

    async def upsert(self, at: Place, rows: Sequence[Stored]) -> Written:
        documents = [{"_id": row.key, VECTOR: orjson.Fragment(row.vector), **row.fields} for row in rows]
        return _written(await self._ask(at, "upsert", documents=documents))

    def size(self, patch: Patch) -> int:
        return len(orjson.dumps(_changes(patch)))

    async def patch(self, at: Place, patches: Sequence[Patch]) -> Written:
        documents = list(map(_changes, patches))
        return _written(await self._ask(at, "update", documents=documents))

    async def fetch(self, at: Place, keys: Sequence[str], fields: Sequence[str], *, vectors: bool) -> list[Row]:
        reply = await self._ask(at, "fetch", ids=list(keys), include_fields=_names(fields, vectors=vectors))
        return [_row(document) for document in reply.documents.values()]

    async def page(
        self, at: Place, where: Where, limit: int, token: str | None, fields: Sequence[str], *, vectors: bool
    ) -> tuple[list[Row], str | None]:
        reply = await self._ask(
            at,
            "fetch",
            filter=where,
            include_fields=_names(fields, vectors=vectors),
            limit=limit,
            pagination_token=token,
        )
        following = reply.pagination.next if reply.pagination is not None else None
        return [_row(document) for document in reply.documents.values()], following or None

    async def search(
        self, at: Place, vector: FloatArray, k: int, where: Where | None, fields: Sequence[str], *, vectors: bool
    ) -> Found:
        clause = {"type": "dense_vector", "field": VECTOR, "values": orjson.loads(_json(vector))}
        return await self._search(at, [clause], k, where, _names(fields, vectors=vectors))

    async def keyword(
        self, at: Place, words: Sequence[str], k: int, where: Where | None, fields: Sequence[str], *, vectors: bool
    ) -> Found:
        clauses = [{"type": "text", "fields": [WORDS], "query": text} for text in words]
        return await self._search(at, clauses, k, where, _names(fields, vectors=vectors))

    async def _search(
        self, at: Place, clauses: list[dict[str, Any]], k: int, where: Where | None, fields: list[str]
    ) -> Found:
        reply = await self._ask(at, "search", score_by=clauses, top_k=k, filter=where, include_fields=fields)
        rows = [_row(document) for document in reply.matches]
        return Found(rows, [document.score for document in reply.matches], reply.response_info.lsn_reconciled)

    async def delete(self, at: Place, keys: Sequence[str]) -> Written:
        return _written(await self._ask(at, "delete", ids=list(keys)))

    async def delete_where(self, at: Place, where: Where) -> Written:
        return _written(await self._ask(at, "delete", filter=where))

    async def clear(self, at: Place) -> Written:
        return _written(await self._ask(at, "delete", delete_all=True))

    async def _ask(self, at: Place, verb: str, **named: Any) -> Any:
        return await self._client.data(at.host, f"documents.{verb}", namespace=at.namespace, **named)


def _json(vector: FloatArray) -> bytes:
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)


def _names(fields: Sequence[str], *, vectors: bool) -> list[str]:
    return [*fields, VECTOR] if vectors else list(fields)


def _changes(patch: Patch) -> dict[str, Any]:
    gone = {"_remove_fields": patch.gone} if patch.gone else {}
    return {"_id": patch.row.key, **patch.given, **gone}


def _row(document: Any) -> Row:
    fields = document.to_dict()
    return Row(document.id, fields, fields.get(VECTOR))


def _written(reply: Any) -> Written:
    info = reply.response_info
    return Written(None if info is None else info.lsn_committed, getattr(reply, "matched_records", None))
