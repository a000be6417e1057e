"""Collections and handles: names, specs that are kept in the store, closed stores, read-only ones, and the tree of errors.

What a handle may still do after its collection or its store is gone is part of the contract: nothing.
"""

from collections.abc import Awaitable, Callable
from dataclasses import FrozenInstanceError, fields
from datetime import datetime
from typing import Any

import pytest

import vectorkit as vk
from vectorkit import F, errors
from vectorkit.aio import AsyncCollection, AsyncStore
from vectorkit.testing.faces import Bench
from vectorkit.testing.kit import Area, all_ids, contract, ids_of, one, put, raises, rec, rows

EAST = [1.0, 0.0, 0.0, 0.0]


def every_verb(docs: AsyncCollection) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Each data verb, ready to be called with arguments that are fine."""
    return {
        "upsert": lambda: docs.upsert([rec("x", EAST)]),
        "insert": lambda: docs.insert([rec("x", EAST)]),
        "get": lambda: docs.get(["x"]),
        "query": lambda: docs.query(EAST),
        "query_many": lambda: docs.query_many([EAST]),
        "keyword": lambda: docs.keyword("word"),
        "hybrid": lambda: docs.hybrid("word", EAST),
        "update": lambda: docs.update(ids=["x"], set={"n": 1}),
        "update by filter": lambda: docs.update(where=F("n") == 1, set={"n": 1}),
        "delete": lambda: docs.delete(ids=["x"]),
        "delete by filter": lambda: docs.delete(where=F("n") == 1),
        "delete everything": lambda: docs.delete(everything=True),
        "count": docs.count,
        "scan": lambda: all_ids(docs),
        "stats": docs.stats,
        "optimize": docs.optimize,
        "explain": lambda: docs.explain(EAST),
    }


class Collections(Area):
    """§5 Errors and the fine print on names, specs and handles."""

    @contract
    async def test_create_open_and_drop(self, store: AsyncStore) -> None:
        """The life of a collection: created once, opened by name, listed, dropped, gone."""
        assert await store.collections() == []
        with raises(vk.NotFound, "docs"):
            await store.collection("docs")
        made = await store.create_collection(self.spec("docs"))
        assert made.name == "docs"
        with raises(vk.AlreadyExists, "docs"):
            await store.create_collection(self.spec("docs"))
        with raises(vk.AlreadyExists, "docs"):
            await store.create_collection(self.spec("docs", dimension=8))
        await put(made, rec("a", EAST))
        opened = await store.collection("docs")
        assert await opened.count() == 1
        await store.create_collection(self.spec("a-first"))
        assert await store.collections() == ["a-first", "docs"]
        await store.drop_collection("docs")
        assert await store.collections() == ["a-first"]
        for call in (store.collection, store.drop_collection):
            with raises(vk.NotFound, "docs"):
                await call("docs")

    @contract
    async def test_drop_and_create_again(self, store: AsyncStore) -> None:
        """A successor of the same name is empty and has its own spec."""
        docs = await self.docs(store, fields={"n": int})
        await put(docs, *rows(5))
        await store.drop_collection("docs")
        again = await self.docs(store, dimension=2, metric="l2")
        assert await again.count() == 0
        assert await all_ids(again) == []
        assert await again.get(["r00001"]) == [None]
        assert await again.query([1, 0]) == []
        if store.capability.keyword:
            assert await again.keyword("common") == []
        await put(again, rec("r00001", [3, 4], "fresh", n="a string now"))
        assert (await again.query([0, 0]))[0].score == pytest.approx(-5)

    @contract
    async def test_handles_after_a_drop(self, store: AsyncStore) -> None:
        """Every verb of a handle whose collection was dropped, by whichever handle, is NotFound."""
        docs = await self.docs(store)
        other = await store.collection("docs")
        keep = await self.docs(store, "keep")
        await put(docs, *rows(3))
        await put(keep, *rows(3))
        await store.drop_collection("docs")
        for handle in (docs, other):
            for verb, call in every_verb(handle).items():
                if (verb in {"keyword", "hybrid"} and not store.capability.keyword) or (
                    verb == "insert" and store.capability.insert == "none"
                ):
                    continue
                with raises(vk.NotFound, "docs"):
                    await call()
        assert await keep.count() == 3

    @contract
    async def test_closed(self, store: AsyncStore) -> None:
        """After close() every verb of the store and of its handles is Closed; closing twice is fine."""
        docs = await self.docs(store)
        await put(docs, *rows(3))
        scan = docs.scan()
        await store.close()
        await store.close()
        for call in every_verb(docs).values():
            with raises(vk.Closed):
                await call()
        with raises(vk.Closed):
            async for _ in scan:
                pass
        calls: list[Callable[[], Awaitable[Any]]] = [
            store.collections,
            lambda: store.collection("docs"),
            lambda: store.create_collection(self.spec("new")),
            lambda: store.ensure_collection(self.spec("docs")),
            lambda: store.drop_collection("docs"),
        ]
        for call in calls:
            with raises(vk.Closed):
                await call()

    @contract
    async def test_collection_names(self, store: AsyncStore) -> None:
        """`[A-Za-z0-9][A-Za-z0-9._-]{0,99}`, exactly: case, dots and length make other collections."""
        good = [
            "a",
            "A",
            "0",
            "a.b",
            "a_b",
            "a-b",
            "a..b",
            "a.",
            "a-",
            "x" * 100,
            "X" * 100,
            "x" * 99,
            "CON",
            "rows",
            "sqlite_master",
            "a.lock",
        ]
        for n, name in enumerate(good):
            await put(await self.docs(store, name, 2), rec("id", [1, n], name, n=n))
        assert await store.collections() == sorted(good)
        for n, name in enumerate(good):
            docs = await store.collection(name)
            assert await docs.count() == 1
            record = await one(docs, "id", vectors=True)
            assert (record.text, record.metadata) == (name, {"n": n})
        await store.drop_collection("a")
        assert await store.collections() == sorted(set(good) - {"a"})
        bad: list[Any] = [
            "",
            "x" * 101,
            ".a",
            "-a",
            "_a",
            "a/b",
            "a b",
            "a\n",
            "a\0",
            "é",
            "a:b",
            "a@1",
            "../a",
            "日",
            "a'",
            'a"',
            None,
            5,
            b"a",
            ["a"],
        ]
        for name in bad:
            with raises(vk.InvalidArgument):
                await store.create_collection(self.spec(name))
            with raises(vk.InvalidArgument):
                await store.collection(name)
            with raises(vk.InvalidArgument):
                await store.drop_collection(name)

    @contract
    async def test_collections_are_apart(self, store: AsyncStore) -> None:
        """The same id in two collections is two rows; every verb stays in its own."""
        one_, two = await self.docs(store, "one"), await self.docs(store, "two")
        await put(one_, *rows(6))
        await put(two, rec("r00001", EAST, "common two", n="two"))
        assert [await one_.count(), await two.count()] == [6, 1]
        assert (await one(two, "r00001")).metadata == {"n": "two"}
        assert (await one(one_, "r00001")).metadata == {"n": 1, "even": False}
        assert ids_of(await two.query(EAST)) == ["r00001"]
        if store.capability.keyword:
            assert len(await one_.keyword("common")) == 6
            assert len(await two.keyword("common")) == 1
        assert await two.delete(everything=True) == 1
        assert await one_.count() == 6
        assert await one_.delete(ids=["r00001"]) == 1

    @contract
    async def test_ensure_collection(self, store: AsyncStore) -> None:
        """Creates, or opens what is there with its rows."""
        made = await store.ensure_collection(self.spec())
        await put(made, rec("a", EAST))
        again = await store.ensure_collection(self.spec())
        assert await again.count() == 1
        assert await store.collections() == ["docs"]
        with raises(vk.InvalidArgument):
            await store.ensure_collection("docs")  # type: ignore[arg-type]
        with raises(vk.InvalidArgument):
            await store.create_collection({"name": "docs"})  # type: ignore[arg-type]

    @contract
    async def test_spec_mismatch(self, store: AsyncStore) -> None:
        """SpecMismatch tells dimension, metric, expiry, embedding and types of declared fields; not index, further fields or text."""
        embedding = vk.Embedding("model", revision="1", normalized=True)
        there: dict[str, Any] = {
            "fields": {"n": int, "tags": list[str]},
            "embedding": embedding,
            "expiry": store.capability.expiry,
        }
        docs = await self.docs(store, **there)
        await put(docs, rec("a", EAST))

        def asked(dimension: int = 4, **changes: Any) -> vk.CollectionSpec:
            return self.spec("docs", dimension, **(there | changes))

        differing: list[tuple[vk.CollectionSpec, dict[str, tuple[object, object]]]] = [
            (asked(8), {"dimension": (4, 8)}),
            (asked(metric="l2"), {"metric": ("cosine", "l2")}),
            (asked(expiry=not there["expiry"]), {"expiry": (there["expiry"], not there["expiry"])}),
            (asked(embedding=None), {"embedding": (embedding, None)}),
            (asked(embedding=vk.Embedding("model", revision="2", normalized=True)), {}),
            (asked(embedding=vk.Embedding("model", revision="1", normalized=False)), {}),
            (asked(embedding=vk.Embedding("other", revision="1", normalized=True)), {}),
            (asked(fields={"n": float}), {}),
            (asked(fields={"n": int, "tags": str}), {}),
            (asked(fields={"n": list[int]}), {}),
            (asked(tenancy="collection"), {"tenancy": (None, "collection")}),
            (asked(8, metric="dot"), {"dimension": (4, 8), "metric": ("cosine", "dot")}),
        ]
        for spec, differences in differing:
            attributes: dict[str, Any] = {"differences": differences} if differences else {}
            with raises(vk.SpecMismatch, "docs", **attributes):
                await store.ensure_collection(spec)
        with raises(vk.SpecMismatch, "n"):
            await store.ensure_collection(asked(fields={"n": str}))
        compatible = [
            asked(), asked(index=vk.Flat()), asked(index=vk.HNSW(m=4)), asked(index=vk.IVF()), asked(fields={}), asked(fields={"n": int}),
            asked(fields={"tags": list[str], "more": float}), asked(text=False),
        ]  # fmt: skip
        for spec in compatible:
            assert await (await store.ensure_collection(spec)).count() == 1

    @contract
    async def test_specs_that_mean_nothing(self, store: AsyncStore) -> None:
        """A malformed spec is InvalidArgument before anything is made."""
        bad: list[dict[str, Any]] = [
            {"dimension": 0}, {"dimension": -1}, {"dimension": True}, {"dimension": 2.0}, {"dimension": "4"}, {"metric": "euclid"}, {"metric": None},
            {"metric": "COSINE"}, {"fields": {"a": dict}}, {"fields": {"a": "varchar"}}, {"fields": {"": int}}, {"fields": {"_vk_a": int}},
            {"fields": {"a\0": int}}, {"fields": {1: int}}, {"fields": ["a"]}, {"fields": {"a": list}}, {"fields": {"a": list[list[int]]}}, {"index": "hnsw"},
            {"index": None}, {"expiry": 1}, {"text": None}, {"tenancy": "rows"}, {"embedding": "model"},
        ]  # fmt: skip
        for options in bad:
            with raises(vk.InvalidArgument):
                self.spec(**options)
        indexes: list[tuple[Any, dict[str, Any]]] = [
            (vk.HNSW, {"m": 1}), (vk.HNSW, {"ef_construction": 0}), (vk.HNSW, {"quantization": "zip"}), (vk.IVF, {"lists": 0}),
        ]  # fmt: skip
        for kind, options in indexes:
            with raises(vk.InvalidArgument):
                kind(**options)
        assert await store.collections() == []

    @contract
    async def test_spec_is_kept_in_the_store(self, store: AsyncStore, bench: Bench) -> None:
        """Whoever opens the collection sees the spec it was made with."""
        spec = self.spec(
            "docs",
            7,
            metric="dot",
            fields={"n": int, "a.b": str, "é": list[float], "t": datetime},
            embedding=vk.Embedding("m", "2"),
            text=False,
        )
        await store.create_collection(spec)
        assert (await store.collection("docs")).spec == spec
        if store.capability.durable:
            store = await bench.reopen(store)
            assert (await store.collection("docs")).spec == spec
            with raises(vk.SpecMismatch, differences={"dimension": (7, 8)}):
                await store.ensure_collection(self.spec("docs", 8, metric="dot", embedding=vk.Embedding("m", "2")))

    @contract
    async def test_reopen(self, store: AsyncStore, bench: Bench) -> None:
        """A durable store holds after a close what it held before, and goes on from there."""
        if not store.capability.durable:
            return
        docs = await self.docs(store, fields={"n": int}, expiry=store.capability.expiry)
        await put(docs, *rows(300))
        await docs.optimize()
        await docs.delete(where=F("n") >= 250)
        await docs.update(ids=["r00003"], set={"n": -3}, unset=["even"])
        await put(docs, rec("late", EAST, "late words", n=7))
        before = {r.id: r async for r in docs.scan(vectors=True)}
        asked = [h.id for h in await docs.query(EAST, k=20)]
        for _ in range(3):
            store = await bench.reopen(store)
            docs = await store.collection("docs")
            assert {r.id: r async for r in docs.scan(vectors=True)} == before
            assert await docs.count() == 251
            assert [h.id for h in await docs.query(EAST, k=20)] == asked
            assert ids_of(await docs.query(EAST, k=1, where=F("n") == -3)) == ["r00003"]
            if store.capability.keyword:
                assert ids_of(await docs.keyword("late")) == ["late"]
            await docs.optimize()
        await put(docs, rec("later", EAST))
        assert await docs.count() == 252

    @contract
    async def test_read_only(self, store: AsyncStore, bench: Bench) -> None:
        """A read-only handle opens beside the writer, reads what was written, and refuses every write."""
        docs = await self.docs(store)
        await put(docs, *rows(10))
        if not store.capability.read_only:
            with raises(vk.Unsupported, store.capability.store):
                await bench.connect(read_only=True)
            return
        reader = await bench.connect(read_only=True)
        if store.capability.durable:
            seen = await reader.collection("docs")
            assert await seen.count() == 10
            assert len(await seen.query(EAST, k=10)) == 10
            assert len(await all_ids(seen)) == 10
            await put(docs, rec("new", EAST, "fresh"))
            assert await seen.count() == 11
            assert "new" in ids_of(await seen.query(EAST, k=11))
            writes = {
                "upsert",
                "insert",
                "update",
                "update by filter",
                "delete",
                "delete by filter",
                "delete everything",
                "optimize",
            }
            for verb, call in every_verb(seen).items():
                if verb == "insert" and store.capability.insert == "none":
                    with raises(vk.Unsupported, store.capability.store):
                        await call()
                elif verb in writes:
                    with raises(vk.Unsupported, "read_only"):
                        await call()
                elif store.capability.keyword or verb not in {"keyword", "hybrid"}:
                    await call()
            with raises(vk.Unsupported, "read_only"):
                await reader.drop_collection("docs")
        with raises(vk.Unsupported, "read_only"):
            await reader.create_collection(self.spec("another"))
        assert await docs.count() == (11 if store.capability.durable else 10)

    @contract
    async def test_capability(self, store: AsyncStore) -> None:
        """One frozen value whose words are those of the grammar."""
        capability = store.capability
        assert isinstance(capability, vk.Capability)
        assert capability.store
        assert capability == store.capability
        with raises(FrozenInstanceError):
            capability.exact = not capability.exact  # type: ignore[misc]
        assert capability.insert in {"atomic", "checked", "none"}
        assert capability.update in {"atomic", "read_modify_write", "none"}
        assert capability.consistency in {"read_your_writes", "eventual"}
        assert capability.keyword == (capability.keyword_statistics is not None)
        for field in fields(capability):
            value = getattr(capability, field.name)
            if field.name.startswith("max_"):
                assert value is None or (type(value) is int and value > 0), field.name
        assert isinstance(capability.indexes, frozenset)
        assert capability.indexes <= {"flat", "hnsw", "ivf"}
        assert isinstance(capability.tenancy, frozenset)
        assert capability.tenancy <= {"collection", "namespace", "filter"}
        assert capability.pushdown <= {
            "$eq",
            "$gt",
            "$gte",
            "$lt",
            "$lte",
            "$in",
            "$contains_any",
            "$contains_all",
            "$startswith",
            "$exists",
        }

    @contract
    async def test_capability_limits(self, store: AsyncStore) -> None:
        """Going over a limit is Unsupported and names it; what cannot expire is refused at creation."""
        limit = store.capability.max_dimension
        if limit is not None:
            with raises(vk.Unsupported, store.capability.store, str(limit)):
                await store.create_collection(self.spec("wide", limit + 1))
        if not store.capability.expiry:
            with raises(vk.Unsupported, store.capability.store):
                await store.create_collection(self.spec("docs", expiry=True))
        wide = await self.docs(store, "wide", min(limit or 3_000, 3_000))
        await put(wide, rec("a", [1.0] * wide.spec.dimension))
        assert (await wide.query([1.0] * wide.spec.dimension))[0].score == pytest.approx(1, abs=1e-5)

    @contract
    async def test_every_index_kind_gives_right_answers(self, store: AsyncStore) -> None:
        """An index is how, never what: those a store builds and those it takes as advice answer alike."""
        kinds = [vk.Flat(), vk.HNSW(m=8, ef_construction=40), vk.IVF(lists=4), vk.HNSW(full_scan_threshold=0)]
        for n, index in enumerate(kinds):
            try:
                docs = await self.docs(store, f"kind{n}", 8, index=index, metric="l2")
            except vk.Unsupported as error:
                assert store.capability.store in str(error)
                assert type(index).__name__.lower() not in store.capability.indexes
                continue
            records = rows(200, 8)
            await put(docs, *records)
            await docs.optimize()
            kind = type(index).__name__.lower()
            if kind in store.capability.indexes:
                assert (await docs.stats()).index == kind
            for record in records[:30:5]:
                hits = await docs.query(record.vector, k=5)  # type: ignore[arg-type]
                assert hits[0].id == record.id
                assert hits[0].score == pytest.approx(0, abs=1e-5)
                assert len(hits) == 5
            assert (await docs.query(np_zeros(8), k=3, where=F("n") == 3)).ids == ["r00003"]

    @contract
    async def test_stats_and_optimize(self, store: AsyncStore) -> None:
        """True figures, and an optimize that changes no answer."""
        docs = await self.docs(store, fields={"n": int})
        assert (await docs.stats()).rows == 0
        await docs.optimize()
        await put(docs, *rows(120))
        await docs.delete(where=F("n") < 20)
        before = await docs.stats()
        assert isinstance(before, vk.Stats)
        assert before.rows == 100
        assert 0 <= before.tombstones <= 1
        assert before.index
        assert all(type(size) is int and size >= 0 for size in before.bytes.values())
        found = await docs.query(EAST, k=100)
        await docs.optimize()
        await docs.optimize()
        after = await docs.stats()
        assert after.rows == 100
        assert after.tombstones == 0
        again = await docs.query(EAST, k=100)
        assert ids_of(again) == ids_of(found)
        assert [h.score for h in again] == pytest.approx([h.score for h in found], abs=1e-5)

    @contract
    async def test_errors_are_one_tree(self, store: AsyncStore) -> None:
        """Every error derives from VectorkitError, is re-exported, and says whether trying again can help."""
        await store.collections()
        names = ["AlreadyExists", "NotFound", "SpecMismatch", "InvalidRecord", "InvalidFilter", "InvalidArgument", "DimensionMismatch", "FingerprintMismatch",
                 "Closed", "Ambiguous", "TenantRequired", "TenantLeak", "Unsupported", "PartialFailure", "Locked", "Corrupt", "Unavailable",
                 "DeadlineExceeded", "RateLimited", "ConfigError", "VectorkitError"]  # fmt: skip
        for name in names:
            kind = getattr(vk, name)
            assert kind is getattr(errors, name)
            assert issubclass(kind, vk.VectorkitError)
            assert kind.retryable is (name in {"Locked", "Unavailable", "DeadlineExceeded", "RateLimited"}), name
        assert issubclass(vk.InvalidArgument, ValueError)
        assert issubclass(vk.InvalidRecord, vk.InvalidArgument)
        with raises(ValueError):
            await store.create_collection(None)  # type: ignore[arg-type]


def np_zeros(count: int) -> list[float]:
    """So many zeros."""
    return [0.0] * count
