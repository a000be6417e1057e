"""Updates, deletes and scans: one explicit selector, true counts, and nothing skipped, repeated or touched by mistake.

An update changes metadata and nothing else; a delete by filter is never a delete of everything.
"""

import math
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from vectorkit import F
from vectorkit.aio import AsyncStore
from vectorkit.testing.faces import Bench
from vectorkit.testing.kit import Area, all_ids, contract, ids_of, one, put, raises, rec, rows
from vectorkit.testing.values import DATETIMES, FIELDS, NOON
from vectorkit.types import Cursor

EAST = [1.0, 0.0, 0.0, 0.0]
NORTH = [0.0, 1.0, 0.0, 0.0]
LATER = DATETIMES[1]
OLD: dict[str, Any] = {
    "s": "p", "b": True, "i": 1, "f": 0.5, "t": NOON, "ls": ["p"], "lb": [True], "li": [1], "lf": [0.5], "lt": [NOON],
}  # fmt: skip
NEW: dict[str, Any] = {
    "s": "q", "b": False, "i": 2, "f": 1.5, "t": LATER, "ls": ["q"], "lb": [False], "li": [2], "lf": [1.5], "lt": [LATER],
}  # fmt: skip
UNSEEN: dict[str, Any] = {"s": "z", "b": "z", "i": 9, "f": 9.5, "t": DATETIMES[3]}


def _after_the_update(name: str) -> list[tuple[vk.Filter, str]]:
    """Filters on one field and whose rows they hold for: `a` has the new value, `b` has none, `c` and `d` have the old one."""
    field, old, new = F(name), OLD[name], NEW[name]
    tests = [(field.exists(), "acd"), (field.missing(), "b")]
    if isinstance(old, list):
        unseen = UNSEEN[name[1]]
        tests += [(field.contains_all(new), "a"), (field.contains_any(old), "cd"), (field.contains_all([]), "acd")]
        tests += [(~field.contains_any(new), "bcd"), (field.contains(unseen), ""), (~field.contains(unseen), "abcd")]
        return tests
    unseen = UNSEEN[name]
    tests += [
        (field == new, "a"),
        (field != old, "ab"),
        (field.in_([old]), "cd"),
        (field == unseen, ""),
        (field.not_in([unseen]), "abcd"),
    ]
    if name != "b":
        tests += [(field >= old, "acd"), (field < new, "cd"), (~(field <= new), "b")]
    if name == "s":
        tests += [(field.startswith(""), "acd"), (~field.startswith("q"), "bcd")]
    return tests


class Changing(Area):
    """§5 Deletes and Scans, and the fine print on selectors and updates."""

    @contract
    async def test_update_sets_and_unsets(self, store: AsyncStore) -> None:
        """Only the named keys change; vector, text and every other key stay."""
        docs = await self.docs(store, fields={"n": int, "tags": list[str]})
        if store.capability.update == "none":
            with raises(vk.Unsupported, store.capability.store):
                await docs.update(ids=["a"], set={"n": 1})
            return
        await put(
            docs,
            rec("a", EAST, "first words", n=1, tags=["x"], free=1.5, nested={"k": [1]}),
            rec("b", NORTH, "second", n=2),
        )
        assert ids_of(await docs.query(EAST, where=F("n") == 1)) == ["a"]
        assert await docs.update(ids=["a"], set={"n": 10, "new": "v"}) == 1
        record = await one(docs, "a", vectors=True)
        assert record.metadata == {"n": 10, "tags": ["x"], "free": 1.5, "nested": {"k": [1]}, "new": "v"}
        assert record.text == "first words"
        assert record.vector == pytest.approx(EAST)
        assert await docs.update(ids=["a"], unset=["free", "nested", "tags", "not there"]) == 1
        assert (await one(docs, "a")).metadata == {"n": 10, "new": "v"}
        assert await docs.update(ids=["a", "b"], set={"n": 3}, unset=["new"]) == 2
        assert [r and r.metadata for r in await docs.get(["a", "b"])] == [{"n": 3}, {"n": 3}]
        assert [await docs.count(F("n") == n) for n in (1, 2, 3, 10)] == [0, 0, 2, 0]
        assert await docs.count(F("tags").exists()) == 0
        assert sorted(ids_of(await docs.query(EAST, where=F("n") == 3))) == ["a", "b"]
        assert [(h.id, h.text, h.metadata) for h in await docs.query(EAST)] == [
            ("a", "first words", {"n": 3}),
            ("b", "second", {"n": 3}),
        ]
        if store.capability.keyword:
            assert [(h.id, h.metadata) for h in await docs.keyword("first")] == [("a", {"n": 3})]
            assert ids_of(await docs.keyword("words", where=F("n") == 3)) == ["a"]
        assert await docs.update(ids=["a"], set={"n": 3}) == 1

    @contract
    async def test_updated_fields_are_filtered_as_they_are(self, store: AsyncStore, bench: Bench) -> None:
        """Set, replaced and removed values of every declared type: filters see the new state, an absent value never matches."""
        if store.capability.update == "none":
            return
        docs = await self.docs(store, fields=FIELDS)
        await put(docs, *[rec(name, EAST, None, **OLD) for name in "abd"], rec("c", EAST))
        assert len(await docs.query(EAST, where=F("s") == "p")) == 3
        await docs.update(ids=["a"], set=NEW)
        await docs.update(ids=["b"], unset=list(OLD))
        await docs.update(ids=["c"], set=OLD)
        for _ in range(3):
            for name in OLD:
                for where, expected in _after_the_update(name):
                    assert sorted(ids_of(await docs.query(EAST, where=where))) == list(expected), where
                    assert await docs.count(where) == len(expected), where
            await docs.optimize()
            if store.capability.durable:
                store = await bench.reopen(store)
                docs = await store.collection("docs")

    @contract
    async def test_bare_rows(self, store: AsyncStore) -> None:
        """Rows of nothing but a vector come back so, with it when asked, and what an update or upsert adds is seen."""
        docs = await self.docs(store, dimension=2, metric="l2")
        await put(docs, *[rec(str(n), [n, 1]) for n in range(9)])
        for back in (False, True):
            for hits in (
                await docs.query([0, 1], k=9, vectors=back),
                (await docs.query_many([[0, 1]], k=9, vectors=back))[0],
            ):
                assert [(h.id, h.text, h.metadata) for h in hits] == [(str(n), None, {}) for n in range(9)]
                for n, hit in enumerate(hits):
                    assert (hit.vector is not None) is back
                    assert not back or hit.vector == pytest.approx([n, 1])
        if store.capability.update != "none":
            assert await docs.update(ids=["3"], set={"n": 3}) == 1
            assert [h.metadata for h in await docs.query([3, 1], k=1)] == [{"n": 3}]
        await put(docs, rec("4", [4, 1], "words"), rec("5", [5, 1], None, n=5))
        assert [(h.text, h.metadata) for h in await docs.query([4, 1], k=1)] == [("words", {})]
        assert [(h.text, h.metadata) for h in await docs.query([5, 1], k=1)] == [(None, {"n": 5})]
        assert len(await all_ids(docs)) == 9

    @contract
    async def test_update_by_filter(self, store: AsyncStore) -> None:
        """The matching rows and no others, once each, though the change moves them out of the filter."""
        docs = await self.docs(store, fields={"n": int})
        await put(docs, *rows(40))
        assert len(await docs.query(EAST, k=40, where=F("n") < 10)) == 10
        assert await docs.update(where=F("n") < 10, set={"n": 100}) == 10
        assert await docs.count(F("n") == 100) == 10
        assert await docs.update(where=F("n") < 10, set={"n": 100}) == 0
        assert await docs.update(where={"even": True}, set={"mark": 1}, unset=["even"]) == 20
        assert await docs.count(F("mark") == 1) == 20
        assert await docs.count(F("even").exists()) == 20
        assert await docs.update(where=F("mark").missing() & (F("n") >= 30), set={"mark": 2}) == 10
        assert await docs.update(where=F("nothing").exists(), set={"mark": 3}) == 0
        assert await docs.count(F("mark").in_([1, 2, 3])) == 30

    @contract
    async def test_update_needs_one_selector(self, store: AsyncStore) -> None:
        """Neither or both is refused, so is a str for ids; unknown ids are 0, repeated ones count once."""
        docs = await self.docs(store)
        await put(docs, rec("a", EAST, None, n=1), rec("b", NORTH, None, n=1))
        refused: list[dict[str, Any]] = [
            {}, {"ids": ["a"], "where": F("n") == 1}, {"ids": None, "where": None}, {"ids": [], "where": {}},
        ]  # fmt: skip
        for selectors in refused:
            with raises(vk.InvalidArgument):
                await docs.update(**selectors, set={"n": 2})
        bad: list[Any] = ["a", b"a", 5, [1], [None], [""], {"a": 1}]
        for ids in bad:
            with raises(vk.InvalidArgument):
                await docs.update(ids=ids, set={"n": 2})
        assert await docs.count(F("n") == 1) == 2
        assert await docs.update(ids=[], set={"n": 2}) == 0
        assert await docs.update(ids=["x", "A"], set={"n": 2}) == 0
        assert await docs.update(ids=["a", "a", "x", "a"], set={"n": 2}) == 1
        assert await docs.get(["x"]) == [None]
        assert [r and r.metadata for r in await docs.get(["a", "b"])] == [{"n": 2}, {"n": 1}]

    @contract
    async def test_update_is_checked(self, store: AsyncStore) -> None:
        """Values and keys are held to the rules of a write; a change of nothing is refused; nothing is touched."""
        docs = await self.docs(store, fields={"n": int})
        await put(docs, rec("a", EAST, None, n=1, free=1))
        values: list[Any] = [
            math.nan,
            math.inf,
            2**63,
            b"x",
            object(),
            [1, "a"],
            [None],
            "a\0",
            "\ud800",
            {"a": math.nan},
        ]
        for value in values:
            with raises(vk.InvalidRecord, field="free"):
                await docs.update(ids=["a"], set={"free": value})
            with raises(vk.InvalidRecord, field="free"):
                await docs.update(where=F("n") == 1, set={"free": value})
        for key in ("", "_vk_x", "a\0", "\ud800"):
            with raises(vk.InvalidArgument):
                await docs.update(ids=["a"], set={key: 1})
        changes: list[dict[str, Any]] = [
            {}, {"set": {}}, {"unset": []}, {"set": None, "unset": None}, {"set": [("n", 1)]}, {"set": "n"}, {"unset": "n"}, {"unset": [1]},
            {"unset": [""]}, {"set": {"n": 2}, "unset": ["n"]}, {"unset": {"n": 1}},
        ]  # fmt: skip
        for change in changes:
            with raises(vk.InvalidArgument):
                await docs.update(ids=["a"], **change)
        with raises(vk.InvalidRecord, field="n"):
            await docs.update(ids=["a"], set={"n": "2"})
        assert (await one(docs, "a")).metadata == {"n": 1, "free": 1}

    @contract
    async def test_delete_needs_one_selector(self, store: AsyncStore) -> None:
        """`delete()`, `delete(where=None)` and `delete(where={})` raise, so do two selectors; nothing is deleted."""
        docs = await self.docs(store)
        await put(docs, *rows(5))
        refused: list[dict[str, Any]] = [
            {}, {"where": None}, {"where": {}}, {"ids": None}, {"everything": False}, {"ids": None, "where": None, "everything": False},
            {"ids": ["r00001"], "where": F("n") == 1}, {"ids": ["r00001"], "everything": True}, {"where": F("n") == 1, "everything": True},
            {"ids": [], "everything": True}, {"where": {"$and": []}}, {"where": {"$and": [{}]}}, {"everything": 1}, {"everything": "yes"},
            {"everything": None},
        ]  # fmt: skip
        for selectors in refused:
            with raises(vk.InvalidArgument):
                await docs.delete(**selectors)
            assert await docs.count() == 5, selectors

    @contract
    async def test_delete_by_ids(self, store: AsyncStore) -> None:
        """How many rows there were: unknown ids are no error, repeated ones count once, no ids are 0."""
        docs = await self.docs(store)
        await put(docs, *rows(10))
        assert await docs.delete(ids=[]) == 0
        assert await docs.delete(ids=["r00001", "nope", "r00001", "r00003", "R00004"]) == 2
        assert await docs.delete(ids=("r00001", "r00003")) == 0
        assert await docs.delete(ids=iter(["r00004"])) == 1  # type: ignore[arg-type]
        bad: list[Any] = ["r00005", b"r", 5, [5], [None], [""], ["x" * 513], ["a\0"], {"r00005": 1}]
        for ids in bad:
            with raises(vk.InvalidArgument):
                await docs.delete(ids=ids)
        assert await all_ids(docs) == [f"r{n:05d}" for n in (0, 2, 5, 6, 7, 8, 9)]
        assert await docs.get(["r00001"]) == [None]
        assert "r00001" not in ids_of(await docs.query(EAST, k=20))
        if store.capability.keyword:
            assert "r00001" not in ids_of(await docs.keyword("common", k=20))
        await put(docs, rec("r00001", NORTH, "back"))
        assert (await one(docs, "r00001")).metadata == {}

    @contract
    async def test_delete_by_filter(self, store: AsyncStore) -> None:
        """Exactly the matching rows, all of them, and how many."""
        docs = await self.docs(store, fields={"n": int})
        await put(docs, *rows(50))
        assert len(await docs.query(EAST, k=50, where=F("n") >= 40)) == 10
        assert await docs.delete(where=F("n") >= 40) == 10
        assert await docs.delete(where=F("n") >= 40) == 0
        assert await docs.delete(where={"even": True}) == 20
        assert await docs.delete(where=F("n").in_([])) == 0
        assert await docs.delete(where={"$or": []}) == 0
        assert await docs.delete(where=(F("n") == 1) | (F("n") == 3) | (F("n") == 4)) == 2
        assert await all_ids(docs) == [f"r{n:05d}" for n in range(5, 40, 2)]
        assert await docs.delete(where=F("n").missing()) == 0
        assert await docs.delete(where=F("gone").missing()) == 18
        assert await docs.count() == 0

    @contract
    async def test_delete_everything(self, store: AsyncStore) -> None:
        """`everything=True` empties the collection, says how many rows there were, and leaves the collection usable."""
        docs = await self.docs(store)
        other = await self.docs(store, "other")
        await put(docs, *rows(25))
        await put(other, *rows(3))
        assert len(await docs.query(EAST, k=50)) == 25
        assert await docs.delete(everything=True) == 25
        assert await docs.delete(everything=True) == 0
        assert await docs.count() == 0
        assert await all_ids(docs) == []
        assert await docs.query(EAST) == []
        assert await other.count() == 3
        await put(docs, rec("r00000", EAST, "word", n=1))
        assert ids_of(await docs.query(EAST)) == ["r00000"]

    @contract
    async def test_scan_gives_each_row_once(self, store: AsyncStore) -> None:
        """Each id exactly once, in any stable order, with text and metadata, under a filter or without."""
        docs = await self.docs(store)
        assert await all_ids(docs) == []
        records = rows(2_300)
        await put(docs, *records)
        first = [r.id async for r in docs.scan()]
        assert sorted(first) == [r.id for r in records]
        assert [r.id async for r in docs.scan()] == first
        assert await all_ids(docs, F("even") == True) == [r.id for r in records[::2]]  # noqa: E712
        assert await all_ids(docs, {"n": {"$lt": 3}}) == ["r00000", "r00001", "r00002"]
        by_id = {r.id: r for r in records}
        async for record in docs.scan(F("n") < 50, vectors=True):
            assert isinstance(record, vk.Record)
            assert (record.text, record.metadata) == (by_id[record.id].text, by_id[record.id].metadata)
            assert record.vector == pytest.approx(by_id[record.id].vector)

    @contract
    async def test_scan_is_lazy(self, store: AsyncStore) -> None:
        """Rows are read as they are consumed; a scan that is left early harms nothing."""
        docs = await self.docs(store)
        await put(docs, *rows(10))
        scan = docs.scan()
        await put(docs, rec("late", EAST))
        assert "late" in [record.id async for record in scan]
        async for _ in docs.scan():
            break
        assert await docs.count() == 11
        assert await docs.delete(everything=True) == 11

    @contract
    async def test_scan_while_rows_are_deleted(self, store: AsyncStore) -> None:
        """Rows that are there throughout are neither skipped nor repeated while others go, before and behind the cursor."""
        docs = await self.docs(store, dimension=2)
        names = [f"{n:04d}" for n in range(5_000)]
        await docs.upsert(vk.Batch(names, np.ones((5_000, 2), np.float32), None, [{"n": n} for n in range(5_000)]))
        staying = {name for n, name in enumerate(names) if n % 3 == 0}
        seen: list[str] = []
        async for record in docs.scan():
            seen.append(record.id)
            if len(seen) in {1, 700, 1_500, 2_200}:
                at = len(seen)
                going = [name for n, name in enumerate(names) if n % 3 and (n * 7 + at) % 4 == 0]
                await docs.delete(ids=going)
        assert len(seen) == len(set(seen))
        assert staying <= set(seen)
        assert set(await all_ids(docs)) >= staying

    @contract
    async def test_scan_while_rows_are_written(self, store: AsyncStore) -> None:
        """Nor while others come, or are replaced, or change their metadata."""
        docs = await self.docs(store, dimension=2)
        names = [f"{n:04d}" for n in range(3_000)]
        await docs.upsert(vk.Batch(names, np.ones((3_000, 2), np.float32), None, [{"n": n} for n in range(3_000)]))
        seen: list[str] = []
        async for record in docs.scan(F("n") >= 0):
            seen.append(record.id)
            if len(seen) in {1, 900, 1_800}:
                at = len(seen)
                await docs.upsert([rec(f"{n:04d}x{at}", [1, 2], None, n=n) for n in range(0, 3_000, 50)])
                await docs.upsert([rec(f"{n:04d}", [2, 1], None, n=n) for n in range(0, 3_000, 7)])
                await docs.update(ids=names[::11], set={"seen": at})
                await docs.optimize()
        assert len(seen) == len(set(seen))
        assert set(names) <= set(seen)

    @contract
    async def test_a_cursor_is_refused_under_another_scope(self, store: AsyncStore) -> None:
        """A scan's cursor is opaque and carries its scope: another collection or filter refuses it."""
        docs = await self.docs(store)
        other = await self.docs(store, "other")
        await put(docs, *rows(10))
        await put(other, *rows(10))
        page = await docs._verbs.page(F("n") >= 0, None, vectors=False, limit=4)
        assert len(page.records) == 4
        assert isinstance(page.cursor, Cursor)
        for handle, where in ((other, F("n") >= 0), (docs, F("n") >= 1), (docs, None)):
            with raises(vk.InvalidArgument, "cursor"):
                await handle._verbs.page(where, page.cursor, vectors=False, limit=4)
        rest = await docs._verbs.page(F("n") >= 0, page.cursor, vectors=False, limit=100)
        assert sorted(r.id for r in [*page.records, *rest.records]) == [f"r{n:05d}" for n in range(10)]
        assert rest.cursor is None

    @contract
    async def test_count_is_exact(self, store: AsyncStore) -> None:
        """After every kind of write, with a filter and without."""
        docs = await self.docs(store, fields={"n": int})
        assert await docs.count() == 0
        await put(docs, *rows(300))
        await put(docs, *rows(100))
        assert await docs.count() == 300
        assert await docs.count(F("n") < 100) == 100
        await docs.delete(ids=[f"r{n:05d}" for n in range(50)])
        assert await docs.count() == 250
        assert await docs.count({"n": {"$lt": 100}}) == 50
        assert await docs.count(~(F("n") < 100)) == 200
        await docs.optimize()
        assert await docs.count() == 250
        assert (await docs.stats()).rows == 250
        await docs.update(where=F("n") >= 290, unset=["n"])
        assert await docs.count(F("n").exists()) == 240
        assert await docs.count(F("n") != 60) == 249
