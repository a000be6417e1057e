"""Writes: whole records, whole batches, true counts, and nothing written when something is refused.

Also that a store keeps nothing of the caller's and hands out nothing of its own.
"""

import math
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from vectorkit import F
from vectorkit.aio import AsyncStore
from vectorkit.testing.faces import Bench
from vectorkit.testing.kit import Area, all_ids, contract, ids_of, one, put, raises, rec, rows, same_in_any_order

EAST = [1.0, 0.0, 0.0, 0.0]
NORTH = [0.0, 1.0, 0.0, 0.0]


class _Text(str):
    __slots__ = ()


def bad_records() -> list[tuple[str, Any, type[vk.VectorkitError], dict[str, Any]]]:
    """What must be refused: a name, a record, the error and its attributes besides `row`."""

    def bad_vector(vector: Any) -> vk.Record:
        return vk.Record("bad", vector)

    def bad_metadata(**metadata: Any) -> vk.Record:
        return vk.Record("bad", EAST, None, metadata)

    found: list[tuple[str, Any, type[vk.VectorkitError], dict[str, Any]]] = [
        ("NaN", bad_vector([math.nan, 0, 0, 1]), vk.InvalidRecord, {"field": "vector"}),
        ("inf", bad_vector([math.inf, 0, 0, 1]), vk.InvalidRecord, {"field": "vector"}),
        ("-inf", bad_vector([0, 0, 0, -math.inf]), vk.InvalidRecord, {"field": "vector"}),
        ("beyond float32", bad_vector([1e39, 0, 0, 1]), vk.InvalidRecord, {"field": "vector"}),
        ("no vector", bad_vector(None), vk.InvalidRecord, {"field": "vector"}),
        ("words for a vector", bad_vector(["a", "b", "c", "d"]), vk.InvalidRecord, {"field": "vector"}),
        ("a string for a vector", bad_vector("abcd"), vk.InvalidRecord, {"field": "vector"}),
        ("a matrix for a vector", bad_vector([EAST]), vk.InvalidRecord, {"field": "vector"}),
        ("a scalar for a vector", bad_vector(1.0), vk.InvalidRecord, {"field": "vector"}),
        ("complex", bad_vector([1j, 0, 0, 0]), vk.InvalidRecord, {"field": "vector"}),
        ("None in a vector", bad_vector([None, 0, 0, 1]), vk.InvalidRecord, {"field": "vector"}),
        ("no id", vk.Record("", EAST), vk.InvalidRecord, {"field": "id"}),
        ("an int id", vk.Record(7, EAST), vk.InvalidRecord, {"field": "id"}),  # type: ignore[arg-type]
        ("None for an id", vk.Record(None, EAST), vk.InvalidRecord, {"field": "id"}),  # type: ignore[arg-type]
        ("bytes for an id", vk.Record(b"a", EAST), vk.InvalidRecord, {"field": "id"}),  # type: ignore[arg-type]
        ("513 bytes of id", vk.Record("x" * 513, EAST), vk.InvalidRecord, {"field": "id"}),
        ("514 bytes in 257 characters of id", vk.Record("é" * 257, EAST), vk.InvalidRecord, {"field": "id"}),
        ("NUL in an id", vk.Record("a\0b", EAST), vk.InvalidRecord, {"field": "id"}),
        ("a surrogate in an id", vk.Record("a\ud800", EAST), vk.InvalidRecord, {"field": "id"}),
        ("an int text", vk.Record("bad", EAST, 7), vk.InvalidRecord, {"field": "text"}),  # type: ignore[arg-type]
        ("bytes for a text", vk.Record("bad", EAST, b"x"), vk.InvalidRecord, {"field": "text"}),  # type: ignore[arg-type]
        ("NUL in a text", vk.Record("bad", EAST, "a\0b"), vk.InvalidRecord, {"field": "text"}),
        ("a surrogate in a text", vk.Record("bad", EAST, "a\udfff"), vk.InvalidRecord, {"field": "text"}),
        ("a list for metadata", vk.Record("bad", EAST, None, [("a", 1)]), vk.InvalidRecord, {"field": "metadata"}),  # type: ignore[arg-type]
        ("an empty key", bad_metadata(**{"": 1}), vk.InvalidRecord, {}),
        ("an int key", vk.Record("bad", EAST, None, {1: 1}), vk.InvalidRecord, {}),  # type: ignore[dict-item]
        ("NUL in a key", bad_metadata(**{"a\0b": 1}), vk.InvalidRecord, {}),
        ("a surrogate in a key", bad_metadata(**{"a\ud800": 1}), vk.InvalidRecord, {}),
        ("a reserved key", bad_metadata(_vk_id=1), vk.InvalidRecord, {"field": "_vk_id"}),
        ("the reserved prefix", bad_metadata(_vk_=1), vk.InvalidRecord, {"field": "_vk_"}),
        (
            "expiry on a collection without",
            vk.Record("bad", EAST, None, {}, datetime(2090, 1, 1, tzinfo=UTC)),
            vk.InvalidRecord,
            {"field": "expires_at"},
        ),
        ("a dict for a record", {"id": "bad", "vector": EAST}, vk.InvalidRecord, {}),
        ("None for a record", None, vk.InvalidRecord, {}),
        ("a short vector", bad_vector([1.0, 0.0, 0.0]), vk.DimensionMismatch, {"got": 3, "expected": 4}),
        ("a long vector", bad_vector([1.0, 0.0, 0.0, 0.0, 0.0]), vk.DimensionMismatch, {"got": 5, "expected": 4}),
    ]
    values: dict[str, Any] = {
        "NaN": math.nan, "inf": math.inf, "2^63": 2**63, "-2^63-1": -(2**63) - 1, "bytes": b"x", "a set": {1}, "an object": object(),
        "a naive datetime": datetime(2024, 1, 1), "complex": 1j, "NUL": "a\0", "a surrogate": "\ud83d", "a mixed list": [1, "a"],  # noqa: DTZ001
        "bool and int in a list": [True, 1], "None in a list": ["a", None], "a list in a list": [[1]], "a mapping in a list": [{"a": 1}],
        "NaN in a list": [math.nan], "2^63 in a list": [2**63], "a naive datetime in a list": [datetime(2024, 1, 1)], "a date": datetime(2024, 1, 1).date(),  # noqa: DTZ001
        "a numpy int": np.int64(1), "a numpy bool": np.bool_(True), "a numpy array": np.ones(2), "a timedelta": timedelta(1),
        "NaN nested": {"a": math.nan}, "an object nested": {"a": {"b": object()}}, "an int key nested": {1: 1}, "NUL nested": {"a": "\0"},
        "a NUL key nested": {"\0": 1}, "NUL in a list": ["\0"],
    }  # fmt: skip
    found += [(name, bad_metadata(m=value), vk.InvalidRecord, {"field": "m"}) for name, value in values.items()]
    return found


class Writing(Area):
    """§5 Writes, and §4 on validation."""

    @contract
    async def test_upsert_replaces_the_whole_record(self, store: AsyncStore) -> None:
        """Vector, text and every key: nothing of the old record is left."""
        docs = await self.docs(store, fields={"n": int, "tags": list[str]})
        await put(
            docs, rec("a", EAST, "old words", n=1, tags=["x"], free="f", nested={"k": 1}), rec("b", NORTH, "other", n=2)
        )
        assert ids_of(await docs.query(EAST, where=F("tags").contains("x"))) == ["a"]
        if store.capability.keyword:
            assert ids_of(await docs.keyword("old")) == ["a"]
        await put(docs, rec("a", NORTH, None, other=True))
        record = await one(docs, "a", vectors=True)
        assert record.text is None
        assert record.metadata == {"other": True}
        assert record.vector == pytest.approx(NORTH)
        for where in (F("n") == 1, F("tags").contains("x"), F("free") == "f", F("nested").exists()):
            assert await docs.count(where) == 0, where
            assert await docs.query(EAST, where=where) == []
        assert await docs.count(F("other") == True) == 1  # noqa: E712
        assert await docs.count() == 2
        assert (await docs.query(EAST, k=2))[0].score == pytest.approx(0, abs=1e-6)
        if store.capability.keyword:
            assert await docs.keyword("old") == []
        await put(docs, rec("a", EAST, "new"))
        assert (await one(docs, "a")).metadata == {}
        assert (await one(docs, "a")).text == "new"

    @contract
    async def test_records_in_every_form(self, store: AsyncStore, bench: Bench) -> None:
        """A list, a tuple, a generator, an iterator, a Batch; nothing at all. The counts are true."""
        docs = await self.docs(store)
        assert await docs.upsert(rows(3, prefix="list")) == vk.WriteResult(3, 0)
        assert await docs.upsert(tuple(rows(2, prefix="tuple"))) == vk.WriteResult(2, 0)
        assert await docs.upsert(r for r in rows(4, prefix="generator")) == vk.WriteResult(4, 0)
        assert await docs.upsert(iter(rows(1, prefix="iterator"))) == vk.WriteResult(1, 0)
        assert await docs.upsert(map(rec, ["map0", "map1"], [EAST, NORTH])) == vk.WriteResult(2, 0)
        batch = vk.Batch(["b1", "b2"], np.array([EAST, NORTH], np.float32), ["one", None], [{"n": 1}, None])
        assert await docs.upsert(batch) == vk.WriteResult(2, 0)
        assert await docs.upsert(vk.Batch.of(rows(2, prefix="of"))) == vk.WriteResult(2, 0)
        assert await docs.upsert(vk.Batch(["c1"], np.array([[1, 2, 3, 4]]))) == vk.WriteResult(1, 0)
        empty: list[Any] = [[], (), iter([]), (r for r in rows(0)), vk.Batch([], np.zeros((0, 4), np.float32))]
        for nothing in empty:
            assert await docs.upsert(nothing) == vk.WriteResult(0, 0)
            if store.capability.insert != "none":
                assert await docs.insert([]) == vk.WriteResult(0, 0)
        if bench.colour == "async":

            async def stream() -> AsyncIterator[vk.Record]:
                for record in rows(3, prefix="async"):
                    yield record

            assert await docs.upsert(stream()) == vk.WriteResult(3, 0)
            assert await docs.delete(ids=[r.id for r in rows(3, prefix="async")]) == 3
        assert await docs.count() == 17
        first, second = await docs.get(["b1", "b2"], vectors=True)
        assert first is not None
        assert second is not None
        assert (first.text, first.metadata) == ("one", {"n": 1})
        assert (second.text, second.metadata) == (None, {})
        assert second.vector == pytest.approx(NORTH)
        assert (await one(docs, "generator00003")).metadata == {"n": 3, "even": False}
        wrong: list[Any] = ["abc", b"abc", {"id": "x"}, rec("a", EAST), None, 5, [["a", EAST]]]
        for records in wrong:
            with raises(vk.InvalidArgument):
                await docs.upsert(records)
        assert await docs.count() == 17

    @contract
    async def test_a_scan_is_a_source(self, store: AsyncStore) -> None:
        """What a scan gives can be written, to another collection or to the same one; nothing is lost on the way."""
        docs = await self.docs(store, fields={"n": int}, expiry=store.capability.expiry)
        copy = await self.docs(store, "copy", fields={"n": int}, expiry=store.capability.expiry)
        await put(
            docs,
            *rows(1_500),
            vk.Record("odd", EAST, None, {"nested": {"a": [1, None]}, "t": datetime(2024, 1, 1, tzinfo=UTC)}),
        )
        for to in (copy, docs):
            assert (await to.upsert(docs.scan(vectors=True))).written == 1_501
            assert await to.count() == 1_501
        before = {r.id: r async for r in docs.scan(vectors=True)}
        assert {r.id: r async for r in copy.scan(vectors=True)} == before

    @contract
    async def test_upsert_counts_replaced_rows(self, store: AsyncStore) -> None:
        """`written` is the rows now in the store by this call, new or replaced."""
        docs = await self.docs(store)
        assert await docs.upsert(rows(3)) == vk.WriteResult(3, 0)
        assert await docs.upsert(rows(5)) == vk.WriteResult(5, 0)
        assert await docs.count() == 5

    @contract
    async def test_insert_never_overwrites(self, store: AsyncStore) -> None:
        """One conflict: AlreadyExists with those ids, and nothing of the batch is written."""
        docs = await self.docs(store)
        if store.capability.insert == "none":
            with raises(vk.Unsupported, store.capability.store):
                await docs.insert(rows(1))
            return
        assert await docs.insert(rows(3)) == vk.WriteResult(3, 0)
        fresh = [
            rec("new1", EAST),
            rec("r00001", EAST, "overwritten", n="x"),
            rec("new2", EAST),
            rec("r00002", NORTH, "overwritten"),
        ]
        for records in (fresh, vk.Batch.of(fresh), iter(fresh)):
            with raises(vk.AlreadyExists, "r00001", ids=("r00001", "r00002")):
                await docs.insert(records)
        with raises(vk.AlreadyExists, ids=("r00000",)):
            await docs.insert([rec("r00000", EAST)], on_conflict="fail")
        assert await all_ids(docs) == ["r00000", "r00001", "r00002"]
        assert [r and (r.text, r.metadata["n"]) for r in await docs.get(["r00001", "r00002"])] == [
            ("word1 common", 1),
            ("word2 common", 2),
        ]
        if store.capability.keyword:
            assert await docs.keyword("overwritten") == []
        assert vk.AlreadyExists("x").retryable is False

    @contract
    async def test_insert_skip(self, store: AsyncStore) -> None:
        """`on_conflict="skip"` leaves existing rows alone, writes the others and counts both."""
        docs = await self.docs(store)
        if store.capability.insert == "none":
            with raises(vk.Unsupported, store.capability.store):
                await docs.insert(rows(1), on_conflict="skip")
            return
        await docs.insert(rows(3))
        mixed = [rec("new1", EAST, "n"), rec("r00001", EAST, "overwritten"), rec("new2", NORTH)]
        assert await docs.insert(mixed, on_conflict="skip") == vk.WriteResult(2, 1)
        assert await docs.insert(vk.Batch.of(mixed), on_conflict="skip") == vk.WriteResult(0, 3)
        assert await docs.insert(iter([*mixed, rec("new3", EAST)]), on_conflict="skip") == vk.WriteResult(1, 3)
        assert await all_ids(docs) == ["new1", "new2", "new3", "r00000", "r00001", "r00002"]
        assert (await one(docs, "r00001")).text == "word1 common"
        assert ids_of(await docs.query(NORTH, k=1)) == ["new2"]
        for mode in ("replace", "", None, True):
            with raises(vk.InvalidArgument, "on_conflict"):
                await docs.insert(mixed, on_conflict=mode)  # type: ignore[arg-type]

    @contract
    async def test_duplicates_in_one_batch_are_refused(self, store: AsyncStore) -> None:
        """The same id twice in one list or Batch: InvalidRecord naming the second row; nothing is written."""
        docs = await self.docs(store)
        twice = [rec("a", EAST), rec("b", EAST), rec("a", NORTH)]
        for records in (twice, tuple(twice), vk.Batch.of(twice), iter(twice)):
            with raises(vk.InvalidRecord, "'a'", row=2, field="id"):
                await docs.upsert(records)
        if store.capability.insert != "none":
            for records in (twice, vk.Batch.of(twice)):
                with raises(vk.InvalidRecord, row=2, field="id"):
                    await docs.insert(records)
                with raises(vk.InvalidRecord, row=2, field="id"):
                    await docs.insert(records, on_conflict="skip")
        assert await docs.count() == 0
        await put(docs, rec("a", EAST), rec("A", EAST), rec("a ", EAST), rec("é", EAST), rec("e\u0301", EAST))

    @contract
    async def test_invalid_records(self, store: AsyncStore) -> None:
        """Every value that cannot be kept exactly is refused with its row and field, and nothing is written."""
        docs = await self.docs(store)
        for name, record, error, attributes in bad_records():
            with raises(error, row=2, **attributes):
                await docs.upsert([rec("fine", EAST), rec("fine too", NORTH), record])
            if store.capability.insert != "none":
                with raises(error, row=1, **attributes):
                    await docs.insert([rec("fine", EAST), record], on_conflict="skip")
            with raises(error, row=1, **attributes):
                await docs.upsert(iter([rec("fine", EAST), record]))
            assert await docs.count() == 0, name
        with raises(vk.DimensionMismatch, row=0, expected=4, got=3):
            await docs.upsert([rec("short", [1, 0, 0]), rec("fine", EAST), rec("fine too", NORTH)])
        with raises(vk.InvalidRecord, "zero", row=1, field="vector"):
            await docs.upsert([rec("fine", EAST), rec("zero", [0, 0, 0, 0])])
        with raises(vk.InvalidRecord, "zero", row=0, field="vector"):
            await docs.upsert(vk.Batch(["zero"], np.zeros((1, 4), np.float32)))
        assert await docs.count() == 0
        for metric in ("dot", "l2"):
            points = await self.docs(store, metric, metric=metric)
            await put(points, rec("zero", [0, 0, 0, 0]))
            assert (await one(points, "zero", vectors=True)).vector == pytest.approx([0, 0, 0, 0])
            assert len(await points.query(EAST)) == 1

    @contract
    async def test_invalid_batches(self, store: AsyncStore) -> None:
        """A Batch is checked as a list is; its columns have to agree."""
        docs = await self.docs(store)
        vectors = np.array([EAST, NORTH, EAST], np.float32)
        poisoned = vectors.copy()
        poisoned[1, 2] = np.nan
        ids = ["a", "b", "c"]
        with raises(vk.InvalidRecord, row=1, field="vector"):
            await docs.upsert(vk.Batch(ids, poisoned))
        with raises(vk.DimensionMismatch, expected=4, got=3):
            await docs.upsert(vk.Batch(ids, vectors[:, :3]))
        with raises(vk.InvalidRecord, row=2, field="m"):
            await docs.upsert(vk.Batch(ids, vectors, None, [{}, {}, {"m": object()}]))
        with raises(vk.InvalidRecord, row=1, field="text"):
            await docs.upsert(vk.Batch(ids, vectors, ["x", "\0", "y"]))
        with raises(vk.InvalidRecord, row=1, field="id"):
            await docs.upsert(vk.Batch(["a", "", "c"], vectors))
        uneven: list[dict[str, Any]] = [{"texts": ["x"]}, {"metadata": [{}]}, {"expires_at": []}, {"texts": "abc"}]
        for columns in uneven:
            with raises(vk.InvalidArgument):
                vk.Batch(ids, vectors, **columns)
        with raises(vk.InvalidArgument):
            vk.Batch(["a"], vectors)
        with raises(vk.InvalidArgument):
            vk.Batch("abc", vectors)
        assert await docs.count() == 0

    @contract
    async def test_a_list_is_refused_whole(self, store: AsyncStore) -> None:
        """A list or Batch of more rows than one request takes is still all or nothing when a row is bad."""
        docs = await self.docs(store, dimension=2)
        count = 10_003
        vectors = np.ones((count, 2), np.float32)
        ids = [str(n) for n in range(count)]
        metadata: list[dict[str, Any] | None] = [None] * count
        metadata[count - 1] = {"m": math.nan}
        with raises(vk.InvalidRecord, row=count - 1, field="m"):
            await docs.upsert(vk.Batch(ids, vectors, None, metadata))
        records = [vk.Record(id, vectors[0]) for id in ids]  # noqa: A001
        records[-1] = vk.Record(ids[0], vectors[0])
        with raises(vk.InvalidRecord, row=count - 1, field="id"):
            await docs.upsert(records)
        assert await docs.count() == 0

    @contract
    async def test_an_iterator_is_sent_in_chunks(self, store: AsyncStore) -> None:
        """Chunks of 10,000, each checked whole: PartialFailure tells the committed prefix and what was not written."""
        docs = await self.docs(store, dimension=2)

        def stream(bad: Any) -> Iterator[Any]:
            for n in range(10_020):
                yield bad if n == 10_007 else vk.Record(str(n), [1.0, n])

        failed = tuple(str(n) if n != 10_007 else "bad" for n in range(10_000, 10_020))
        with raises(vk.PartialFailure, written=10_000, failed=failed):
            try:
                await docs.upsert(stream(vk.Record("bad", [math.nan, 0])))
            except vk.PartialFailure as error:
                assert isinstance(error.__cause__, vk.InvalidRecord)
                assert (error.__cause__.row, error.__cause__.field) == (10_007, "vector")
                assert error.retryable is False
                raise
        if (
            store.capability.consistency == "eventual"
        ):  # a call that fails waits for nothing; the next that waits, for all before
            await docs.upsert([vk.Record("0", [1.0, 0])])
        assert await docs.count() == 10_000
        assert await docs.get(["9999", "10000", "bad"]) != [None, None, None]
        assert [r and r.id for r in await docs.get(["9999", "10000", "bad"])] == ["9999", None, None]
        if store.capability.insert != "none":
            with raises(vk.PartialFailure, written=0):
                await docs.insert(stream({}), on_conflict="skip")
        assert await docs.count() == 10_000

    @contract
    async def test_twelve_thousand_rows(self, store: AsyncStore) -> None:
        """Nothing is cut at 1,000, 10,000 or any other page: write, count, get, scan, query, keyword, delete."""
        count = 12_003
        docs = await self.docs(store, dimension=2, metric="l2", fields={"n": int})
        result = await docs.upsert(
            vk.Record(f"{n:05d}", [1.0, n], "word", {"n": n, "free": n % 2}) for n in range(count)
        )
        assert result == vk.WriteResult(count, 0)
        ids = [f"{n:05d}" for n in range(count)]
        assert await docs.count() == count
        assert await docs.count(F("n") >= 3) == count - 3
        assert await docs.count(F("free") == 1) == count // 2
        got = await docs.get([*reversed(ids), "none"])
        assert [record and record.id for record in got] == [*reversed(ids), None]
        assert [record and record.metadata["n"] for record in got[:3]] == [count - 1, count - 2, count - 3]
        assert await all_ids(docs) == ids
        assert await all_ids(docs, F("free") == 0) == ids[::2]
        most = min(count, store.capability.max_k or count)
        hits = await docs.query([1, 0], k=most)
        assert ids_of(hits) == ids[:most]
        assert [hits[n].score for n in (0, 1, most - 1)] == pytest.approx([0, -1, 1 - most])
        assert len(await docs.query([1, 0], k=most, where=F("free") == 1)) == count // 2
        points = [1, 4_000, 8_191, 8_192, 8_193, 9_000, 12_001]
        near = [[ids[n], ids[n - 1], ids[n + 1]] for n in points]
        for exact in {False, store.capability.exact}:
            assert [h.ids for h in await docs.query_many([[1, n] for n in points], k=3, exact=exact)] == near
            odd = await docs.query_many([[1, n - n % 2 + 1] for n in points], k=2, where=F("n") >= 0, exact=exact)
            assert [h.ids[0] for h in odd] == [ids[n - n % 2 + 1] for n in points]
            few = await docs.query_many([[1, n] for n in points], k=2, where=F("n").in_(points), exact=exact)
            assert [h.ids[0] for h in few] == [ids[n] for n in points]
        if store.capability.keyword:
            for found in (await docs.keyword("word", k=most), await docs.hybrid("word", [1, 0], k=most)):
                assert len(found) == len(set(ids_of(found))) == most
                assert set(ids_of(found)) <= set(ids)
        assert await docs.update(where=F("free") == 0, set={"seen": True}) == (count + 1) // 2
        assert await docs.update(ids=ids, set={"all": True}) == count
        assert await docs.count(F("seen") == True) == (count + 1) // 2  # noqa: E712
        assert await docs.count(F("all") == True) == count  # noqa: E712
        assert await docs.delete(where=F("free") == 1) == count // 2
        assert await docs.delete(ids=ids) == (count + 1) // 2
        assert await docs.count() == 0

    @contract
    async def test_ids_are_exact(self, store: AsyncStore) -> None:
        """Case, normal form, blanks and length are part of an id, up to 512 bytes."""
        docs = await self.docs(store, dimension=2, metric="l2")
        ids = ["a", "A", "a ", " a", "é", "e\u0301", "ß", "ss", "SS", "1", "01", "1.0", "a/b", "a\\b", "a\nb", "%", "_", "x" * 512, "X" * 512,
               "x" * 511, "é" * 256, "😀" * 128, "\u200b", "\ufeff", "\u2028", "ﬁ", "fi", "İ", "i̇", "true", "null", "."]  # fmt: skip
        await put(docs, *[rec(name, [n, 0], None, n=n) for n, name in enumerate(ids)])
        assert await docs.count() == len(ids)
        got = await docs.get(ids)
        assert [(r.id, r.metadata["n"]) for r in got if r] == [(name, n) for n, name in enumerate(ids)]
        for n, name in enumerate(ids):
            assert ids_of(await docs.query([n, 0], k=1)) == [name]
        assert await all_ids(docs) == sorted(ids)
        for n, name in enumerate(ids[:8]):
            assert await docs.update(ids=[name], set={"n": -n}) == 1
            assert await docs.delete(ids=[name]) == 1
            assert await docs.count() == len(ids) - n - 1
        assert await docs.get(["a", "A", "b", "x" * 510]) == [None] * 4
        await put(docs, vk.Record(_Text("subclass"), [1, 1], _Text("text"), {_Text("key"): _Text("value")}))
        record = await one(docs, "subclass")
        assert [type(record.id), type(record.text)] == [str, str]
        assert [(type(k), type(v)) for k, v in record.metadata.items()] == [(str, str)]
        assert (await docs.get([_Text("subclass")]))[0] == record

    @contract
    async def test_get_answers_in_order(self, store: AsyncStore) -> None:
        """One answer for each id asked, in that order, None where there is no row, repeats repeated."""
        docs = await self.docs(store)
        await put(docs, *rows(20))
        got = await docs.get(["r00007", "nope", "r00003", "r00019", "r00007", "r00000", "R00001"])
        assert [r and r.id for r in got] == ["r00007", None, "r00003", "r00019", "r00007", "r00000", None]
        assert [r.metadata["n"] for r in got if r] == [7, 3, 19, 7, 0]
        assert await docs.get([]) == []
        assert [r and r.id for r in await docs.get(("r00001",))] == ["r00001"]
        assert [r and r.id for r in await docs.get(iter(["r00002", "r00001"]))] == ["r00002", "r00001"]  # type: ignore[arg-type]
        bad: list[Any] = ["r00001", b"r", None, 5, [1], [None], [""], ["x" * 513], ["a\0"], ["\ud800"], {"r00001": 1}]
        for ids in bad:
            with raises(vk.InvalidArgument):
                await docs.get(ids)

    @contract
    async def test_text_none_and_empty(self, store: AsyncStore) -> None:
        """None and "" are two texts, and both come back; so does every character."""
        docs = await self.docs(store)
        texts = {
            "none": None,
            "empty": "",
            "blank": " \n\t",
            "odd": "a\r\nb\u2028\ufeff😀é e\u0301 \x01\x7f",
            "None": "None",
        }
        await put(docs, *[vk.Record(name, EAST, text) for name, text in texts.items()])
        assert {r.id: r.text for r in await docs.get(list(texts)) if r} == texts
        assert {r.id: r.text async for r in docs.scan()} == texts
        assert {h.id: h.text for h in await docs.query(EAST)} == texts

    @contract
    async def test_a_long_text(self, store: AsyncStore) -> None:
        """A text of 320,000 characters comes back from every verb that returns texts."""
        docs = await self.docs(store)
        long = "words and words " * 20_000
        await put(docs, rec("long", EAST, long), rec("short", EAST, "words"))
        assert {r.id: r.text for r in await docs.get(["long", "short"]) if r} == {"long": long, "short": "words"}
        assert {r.id: r.text async for r in docs.scan()} == {"long": long, "short": "words"}
        assert {h.id: h.text for h in await docs.query(EAST)} == {"long": long, "short": "words"}

    @contract
    async def test_text_without_a_keyword_index(self, store: AsyncStore) -> None:
        """text=False keeps and returns the text; keyword() is refused."""
        docs = await self.docs(store, text=False)
        await put(docs, rec("a", EAST, "some words"), rec("b", NORTH, ""), rec("c", NORTH, None))
        assert {r.id: r.text for r in await docs.get(["a", "b", "c"]) if r} == {"a": "some words", "b": "", "c": None}
        assert {h.id: h.text for h in await docs.query(EAST)} == {"a": "some words", "b": "", "c": None}
        with raises(vk.Unsupported, store.capability.store):
            await docs.keyword("words")
        with raises(vk.Unsupported, store.capability.store):
            await docs.hybrid("words", EAST)
        await put(docs, rec("a", EAST, "other"))
        assert (await one(docs, "a")).text == "other"

    @contract
    async def test_the_callers_objects_are_not_kept(self, store: AsyncStore) -> None:
        """What the caller changes after a write is not changed in the store."""
        docs = await self.docs(store, metric="l2")
        vector = np.array(EAST, np.float32)
        tags, nested = ["x"], {"deep": {"list": [1, 2]}}
        metadata: dict[str, Any] = {"tags": tags, "nested": nested, "n": 1}
        matrix = np.array([EAST, NORTH], np.float32)
        columns: list[Any] = [{"m": [1]}, {"m": [2]}]
        await put(docs, vk.Record("a", vector, "text", metadata))
        await docs.upsert(vk.Batch(["b", "c"], matrix, ["t", "u"], columns))
        second = await self.docs(store, "second", metric="l2")
        await second.upsert(vk.Batch(["b", "c"], matrix))
        change = {"set": ["s"]}
        await docs.update(ids=["c"], set=change)
        vector[:] = 9
        matrix[:] = 9
        tags.append("y")
        nested["deep"]["list"].append(3)
        metadata["n"] = 2
        metadata["new"] = 1
        columns[0]["m"].append(9)
        columns[1]["x"] = 1
        change["set"].append("t")
        a, b, c = (
            await one(docs, "a", vectors=True),
            await one(docs, "b", vectors=True),
            await one(docs, "c", vectors=True),
        )
        assert a.metadata == {"tags": ["x"], "nested": {"deep": {"list": [1, 2]}}, "n": 1}
        assert b.metadata == {"m": [1]}
        assert c.metadata == {"m": [2], "set": ["s"]}
        assert a.vector == pytest.approx(EAST)
        assert [b.vector, c.vector] == [pytest.approx(EAST), pytest.approx(NORTH)]
        assert ids_of(await docs.query(EAST, k=3)) == ["a", "b", "c"]
        assert [h.score for h in await second.query(EAST)] == pytest.approx([0, -(2**0.5)], abs=1e-6)
        assert await docs.count(F("tags").contains("y")) == 0

    @contract
    async def test_returned_objects_share_nothing(self, store: AsyncStore) -> None:
        """What the caller does to an answer is not done to the store, nor to another answer."""
        docs = await self.docs(store, fields={"tags": list[str]})
        await put(docs, rec("a", EAST, "word", tags=["x"], nested={"deep": {"list": [1]}}, n=1))
        expected = {"tags": ["x"], "nested": {"deep": {"list": [1]}}, "n": 1}

        async def answers() -> list[Any]:
            found: list[Any] = [
                await one(docs, "a", vectors=True), (await docs.query(EAST, vectors=True))[0],
                (await docs.query_many([EAST], vectors=True))[0][0], *[r async for r in docs.scan(vectors=True)],
                *(await docs.get(["a", "a"], vectors=True)), *[h for hits in await docs.query_many([EAST, EAST], vectors=True) for h in hits],
            ]  # fmt: skip
            if store.capability.keyword:
                found += [
                    (await docs.keyword("word", vectors=True))[0],
                    (await docs.hybrid("word", EAST, vectors=True))[0],
                ]
            return found

        for answer in await answers():
            answer.metadata["tags"].append("mine")
            answer.metadata["nested"]["deep"]["list"].append("mine")
            answer.metadata["n"] = "mine"
            answer.metadata["new"] = "mine"
            if answer.vector.flags.writeable:
                answer.vector[:] = 7
        for answer in await answers():
            assert answer.metadata == expected
            assert answer.vector == pytest.approx(EAST)
        assert await docs.count(F("tags").contains("mine")) == 0
        assert (await docs.query(EAST))[0].score == pytest.approx(1)

    @contract
    async def test_a_write_is_seen_at_once(self, store: AsyncStore) -> None:
        """A write that returned is seen by every later read, on a store that says so."""
        docs = await self.docs(store, metric="l2", fields={"n": int})
        other = await store.collection("docs")
        if store.capability.consistency != "read_your_writes":
            return
        for n in range(12):
            await put(docs, vk.Record(str(n), [n, 0, 0, 1], f"word{n}", {"n": n}))
            for handle in (docs, other):
                assert await handle.count() == n + 1
                assert await handle.count(F("n") == n) == 1
                assert ids_of(await handle.query([n, 0, 0, 1], k=1)) == [str(n)]
                assert len(await all_ids(handle)) == n + 1
                if store.capability.keyword:
                    assert ids_of(await handle.keyword(f"word{n}")) == [str(n)]
        for n in range(12):
            assert await docs.delete(ids=[str(n)]) == 1
            assert await other.get([str(n)]) == [None]
            assert str(n) not in ids_of(await other.query([n, 0, 0, 1], k=12))

    @contract
    async def test_index_follows_writes(self, store: AsyncStore) -> None:
        """After optimize, deleted rows stay away, replaced vectors are found where they are now, new ones are found."""
        docs = await self.docs(store, dimension=8, metric="l2", fields={"n": int})
        records = rows(400, 8, seed=31)
        vectors = {r.id: np.asarray(r.vector) for r in records}
        await put(docs, *records)
        await docs.optimize()
        gone = [r.id for r in records[::4]]
        moved = [r.id for r in records[1::4]]
        assert await docs.delete(ids=gone) == 100
        for id in gone:  # noqa: A001
            vectors.pop(id)
        shift = np.full(8, 50, np.float32)
        for id in moved:  # noqa: A001
            vectors[id] = vectors[id] + shift
        await put(docs, *[rec(id, vectors[id], "moved") for id in moved])  # noqa: A001
        await put(docs, *[rec(f"new{n}", np.full(8, -50 - n, np.float32)) for n in range(5)])
        vectors |= {f"new{n}": np.full(8, -50 - n, np.float32) for n in range(5)}
        names = list(vectors)
        matrix = np.array([vectors[name] for name in names], np.float64)
        for _ in range(3):
            assert await docs.count() == len(names)
            for query in [*records[:40:4], records[1], records[5]]:
                for point in (np.asarray(query.vector), np.asarray(query.vector) + shift):
                    distance = np.sqrt(((matrix - np.asarray(point, np.float64)) ** 2).sum(axis=1))
                    best = names[int(distance.argmin())]
                    hits = await docs.query(point, k=5, vectors=True)
                    assert len(hits) == 5
                    assert not set(ids_of(hits)) & set(gone)
                    assert hits[0].id == best
                    assert hits[0].score == pytest.approx(-float(distance.min()), abs=1e-4)
                    for hit in hits:
                        assert hit.vector == pytest.approx(vectors[hit.id], rel=1e-6)
            assert ids_of(await docs.query(np.full(8, -52, np.float32), k=1)) == ["new2"]
            everything = await docs.query(shift, k=1000)
            assert sorted(ids_of(everything)) == sorted(names)
            await docs.optimize()
        assert await docs.delete(everything=True) == len(names)
        assert await docs.query(shift, k=5) == []
        await docs.optimize()
        assert await docs.query(shift, k=5) == []
        await put(docs, rec("again", shift))
        assert ids_of(await docs.query(shift, k=5)) == ["again"]

    @contract
    async def test_concurrent_calls(self, store: AsyncStore, bench: Bench) -> None:
        """Writes, reads and deletes that overlap: every answer is of whole rows, and nothing is lost."""
        docs = await self.docs(store, metric="l2")
        await put(docs, *[rec(f"base{n}", [n, 0, 0, 0], "base", n=n) for n in range(30)])

        async def write(n: int) -> None:
            assert await docs.upsert([rec(f"w{n}-{m}", [n, m, 1, 0], "late", n=n) for m in range(5)]) == vk.WriteResult(
                5, 0
            )

        async def read(n: int) -> None:
            hits = await docs.query([n, 0, 0, 0], k=1, where=F("n") < 30)
            assert ids_of(hits) == [f"base{n}"]
            assert hits[0].metadata == {"n": n}
            assert await docs.count(F("n") < 10) >= 10

        async def remove(n: int) -> None:
            assert await docs.delete(ids=[f"base{n}"]) == 1

        await bench.together(*[task(n) for n in range(20) for task in (write, read)])
        await bench.together(*[remove(n) for n in range(10)], *[read(n) for n in range(20, 30)])
        assert await docs.count() == 30 + 100 - 10
        assert await docs.count(F("n") < 5) == 25

    @contract
    async def test_wait_is_checked(self, store: AsyncStore) -> None:
        """`wait=` is seconds or None; where writes are seen at once it costs nothing."""
        docs = await self.docs(store)
        for wait in (None, 0, 0.5, 10):
            assert (await docs.upsert([rec("a", EAST)], wait=wait)).written == 1
        bad: list[Any] = [-1, True, "1", math.nan, math.inf]
        for wait in bad:
            with raises(vk.InvalidArgument, "wait"):
                await docs.upsert([rec("a", EAST)], wait=wait)

    @contract
    async def test_wide_rows(self, store: AsyncStore) -> None:
        """A row of many keys and long values comes back whole."""
        docs = await self.docs(store)
        metadata: dict[str, Any] = {f"key{n}": n for n in range(500)} | {
            "long": "x" * 100_000,
            "list": list(range(5_000)),
        }
        await put(docs, vk.Record("wide", EAST, None, metadata))
        assert same_in_any_order((await one(docs, "wide")).metadata, metadata)
        assert await docs.count(F("list").contains(4_999)) == 1
        assert await docs.count(F("key499") == 499) == 1
