"""The public API as a user writes it, for the type checker first: `assert_type` pins what each verb gives, in both colours."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, assert_type

import numpy as np
import pytest

import vectorkit as vk
from vectorkit import F


def spec() -> vk.CollectionSpec:
    return vk.CollectionSpec(
        "articles",
        dimension=2,
        metric="cosine",
        index=vk.HNSW(m=16, ef_construction=200),
        tenancy=None,
        expiry=True,
        fields={"year": int, "tags": list[str]},
        text=True,
        embedding=vk.Embedding("all-MiniLM-L6-v2", revision="1", normalized=True),
    )


def test_sync() -> None:
    with vk.connect("memory://", read_only=False) as store:
        assert_type(store, vk.Store)
        docs = store.create_collection(spec())
        assert_type(docs, vk.Collection)
        assert_type(store.ensure_collection(spec()), vk.Collection)
        assert_type(store.collections(), list[str])
        assert_type(store.capability, vk.Capability)
        written = docs.upsert((vk.Record(i, np.ones(2), "text", {"year": 1}) for i in "ab"), ttl=timedelta(hours=1))
        assert_type(written, vk.WriteResult)
        assert_type(docs.insert([vk.Record("c", [1, 2])], on_conflict="skip"), vk.WriteResult)
        assert_type(docs.upsert(vk.Batch(["d"], np.ones((1, 2), np.float32))), vk.WriteResult)
        (found, missing) = docs.get(["a", "nobody"], vectors=True)
        assert_type(found, vk.Record | None)
        assert missing is None
        hits = docs.query([1, 0], k=3, where=(F("year") >= 1) & ~F("tags").contains("x"), exact=True)
        assert_type(hits, vk.Hits)
        for hit in hits:
            assert_type(hit, vk.Hit)
            assert_type(hit.score, float)
            assert_type(hit.metadata, Mapping[str, Any])
        assert_type(docs.query_many(np.ones((2, 2)), k=1), list[vk.Hits])
        assert_type(docs.keyword("text", where={"year": {"$gte": 1}}), vk.Hits)
        assert_type(docs.hybrid("text", [1, 0], fusion=vk.RRF(weights=[1, 2])), vk.Hits)
        assert_type(docs.update(ids=["a"], set={"year": 2}), int)
        assert_type(docs.delete(where=F("year") == 2), int)
        assert_type(docs.count(), int)
        for record in docs.scan(F("year").exists()):
            assert_type(record, vk.Record)
        assert_type(docs.stats(), vk.Stats)
        assert_type(docs.explain([1, 0]), vk.Explanation)
        docs.optimize()
        store.drop_collection("articles")


def test_async() -> None:
    async def body() -> None:
        async with await vk.aconnect("memory://") as store:
            assert_type(store, vk.AsyncStore)
            docs = await store.create_collection(spec())
            assert_type(docs, vk.AsyncCollection)
            assert_type(await docs.upsert([vk.Record("a", [1, 0])]), vk.WriteResult)
            assert_type(await docs.query([1, 0]), vk.Hits)
            async for record in docs.scan():
                assert_type(record, vk.Record)

    asyncio.run(body())


def test_errors_say_whether_to_try_again() -> None:
    with pytest.raises(vk.VectorkitError) as caught:
        vk.connect("memory://").collection("nobody")
    assert_type(caught.value.retryable, bool)
    assert not caught.value.retryable
