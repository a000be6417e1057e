"""Expiry: a row is gone at the very instant of `expires_at`, for every verb, and its id is free again.

Time is the bench's clock, so nothing here waits.
"""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import vectorkit as vk
from vectorkit import F
from vectorkit.aio import AsyncCollection, AsyncStore
from vectorkit.testing.faces import Bench
from vectorkit.testing.kit import Area, all_ids, contract, ids_of, one, put, raises

EAST = [1.0, 0.0, 0.0, 0.0]
NORTH = [0.0, 1.0, 0.0, 0.0]
TICK = timedelta(microseconds=1)


def _row(id: str, expires_at: datetime | None = None, **metadata: Any) -> vk.Record:
    return vk.Record(id, EAST, f"word {id}", metadata, expires_at)


class Expiring(Area):
    """§5 Expiry."""

    async def _mortal(self, store: AsyncStore, name: str = "docs", **options: Any) -> AsyncCollection | None:
        """A collection whose rows may expire; None, the refusal checked, where the store has no expiry."""
        if store.capability.expiry:
            return await self.docs(store, name, expiry=True, **options)
        with raises(vk.Unsupported, store.capability.store):
            await self.docs(store, name, expiry=True, **options)
        return None

    async def _visible(self, store: AsyncStore, docs: AsyncCollection) -> list[str]:
        """The ids that are there, on which every reading verb agrees."""
        found = await all_ids(docs)
        assert await docs.count() == len(found)
        assert (await docs.stats()).rows == len(found)
        assert sorted(ids_of(await docs.query(EAST, k=100))) == found
        assert sorted(ids_of(await docs.query(EAST, k=100, exact=store.capability.exact))) == found
        assert sorted(ids_of((await docs.query_many([EAST], k=100))[0])) == found
        assert (await docs.explain(EAST, k=100)).returned == len(found)
        assert await docs.count(F("nowhere").missing()) == len(found)
        assert sorted(ids_of(await docs.query(EAST, k=100, where=F("nowhere").missing()))) == found
        if store.capability.keyword:
            assert sorted(ids_of(await docs.keyword("word", k=100))) == found
            assert sorted(ids_of(await docs.hybrid("word", EAST, k=100))) == found
        return found

    @contract
    async def test_expiry_is_refused_where_it_was_not_asked_for(self, store: AsyncStore, bench: Bench) -> None:
        """expiry=False: expires_at and ttl are refused, and nothing is written."""
        docs = await self.docs(store)
        with raises(vk.InvalidRecord, row=1, field="expires_at"):
            await docs.upsert([_row("a"), _row("b", bench.clock.now + TICK)])
        with raises(vk.InvalidArgument, "ttl"):
            await docs.upsert([_row("a")], ttl=60)
        assert await docs.count() == 0

    @contract
    async def test_expiry_is_at_the_instant(self, store: AsyncStore, bench: Bench) -> None:
        """There a microsecond before expires_at, gone at it."""
        docs = await self._mortal(store)
        if docs is None:
            return
        at = bench.clock.now + timedelta(seconds=10)
        await put(docs, _row("a", at), _row("b", at + TICK), _row("forever"))
        bench.clock.now = at - TICK
        assert await self._visible(store, docs) == ["a", "b", "forever"]
        bench.clock.now = at
        assert await self._visible(store, docs) == ["b", "forever"]
        bench.clock.now = at + TICK
        assert await self._visible(store, docs) == ["forever"]
        bench.clock.now = datetime(9999, 12, 31, tzinfo=UTC)
        assert await self._visible(store, docs) == ["forever"]

    @contract
    async def test_expired_rows_are_absent(self, store: AsyncStore, bench: Bench) -> None:
        """From every verb: reads do not see them, updates and deletes do not count them, k is filled without them."""
        docs = await self._mortal(store, fields={"n": int})
        if docs is None:
            return
        soon = bench.clock.now + timedelta(minutes=1)
        await put(
            docs,
            *[_row(f"dead{n}", soon, n=n, mortal=True) for n in range(20)],
            *[_row(f"live{n}", None, n=n) for n in range(5)],
        )
        await put(docs, vk.Record("north", NORTH, "word", {"n": 9}, soon + timedelta(days=1)))
        await docs.optimize()
        bench.clock.advance(minutes=1)
        live = [*[f"live{n}" for n in range(5)], "north"]
        assert await self._visible(store, docs) == live
        assert await docs.get(["dead0", "dead1"]) == [None, None]
        assert ids_of(await docs.query(EAST, k=6)) == live
        assert await docs.query(EAST, where=F("mortal") == True) == []  # noqa: E712
        assert await docs.count(F("n") == 3) == 1
        assert await all_ids(docs, F("n") < 2) == ["live0", "live1"]
        assert await docs.update(ids=["dead0", "dead1", "live0"], set={"seen": 1}) == 1
        assert await docs.update(where=F("n") == 3, set={"seen": 1}) == 1
        assert await docs.update(where=F("mortal").exists(), set={"seen": 1}) == 0
        assert await docs.count(F("seen") == 1) == 2
        assert await docs.delete(ids=["dead0", "dead2", "live1"]) == 1
        assert await docs.delete(where=F("n") <= 2) == 2
        assert await docs.delete(where=F("mortal") == True) == 0  # noqa: E712
        assert await docs.delete(everything=True) == 3
        assert await self._visible(store, docs) == []

    @contract
    async def test_expired_ids_are_free(self, store: AsyncStore, bench: Bench) -> None:
        """An insert over an expired row succeeds in both modes and leaves nothing of it."""
        docs = await self._mortal(store)
        if docs is None or store.capability.insert == "none":
            return
        soon = bench.clock.now + timedelta(minutes=1)
        await put(docs, _row("a", soon, old=1), _row("b", soon, old=1), _row("live", None, old=1))
        with raises(vk.AlreadyExists, ids=("a",)):
            await docs.insert([_row("a", None, new=1), _row("c")])
        assert await docs.insert([_row("b"), _row("c")], on_conflict="skip") == vk.WriteResult(1, 1)
        bench.clock.advance(minutes=1)
        with raises(vk.AlreadyExists, ids=("live",)):
            await docs.insert([_row("a", None, new=1), _row("live", None, new=1)])
        assert await docs.insert([vk.Record("a", NORTH, "fresh", {"new": 1})]) == vk.WriteResult(1, 0)
        assert await docs.insert([_row("b", None, new=1), _row("live")], on_conflict="skip") == vk.WriteResult(1, 1)
        record = await one(docs, "a", vectors=True)
        assert (record.text, record.metadata, record.expires_at) == ("fresh", {"new": 1}, None)
        assert record.vector == pytest.approx(NORTH)
        assert (await one(docs, "b")).metadata == {"new": 1}
        assert await docs.count() == 4
        if store.capability.keyword:
            assert ids_of(await docs.keyword("fresh")) == ["a"]
            assert "a" not in ids_of(await docs.keyword("word"))

    @contract
    async def test_upsert_without_expiry_clears_it(self, store: AsyncStore, bench: Bench) -> None:
        """An upsert replaces the expiry with the rest, also over an expired row; an update leaves it."""
        docs = await self._mortal(store)
        if docs is None:
            return
        soon = bench.clock.now + timedelta(minutes=1)
        await put(docs, _row("cleared", soon), _row("updated", soon), _row("later", soon), _row("revived", soon, old=1))
        await put(docs, _row("cleared"), _row("later", soon + timedelta(minutes=1)))
        assert await docs.update(ids=["updated"], set={"n": 1}) == 1
        assert (await one(docs, "cleared")).expires_at is None
        assert (await one(docs, "updated")).expires_at == soon
        bench.clock.advance(minutes=1)
        assert await self._visible(store, docs) == ["cleared", "later"]
        assert await docs.upsert([_row("revived")]) == vk.WriteResult(1, 0)
        assert (await one(docs, "revived")).metadata == {}
        bench.clock.advance(minutes=1)
        assert await self._visible(store, docs) == ["cleared", "revived"]

    @contract
    async def test_born_expired(self, store: AsyncStore, bench: Bench) -> None:
        """Accepted, counted as written, invisible; over a live row it takes that row away."""
        docs = await self._mortal(store)
        if docs is None:
            return
        past = bench.clock.now - timedelta(days=1)
        assert await docs.upsert([_row("a", past), _row("b", bench.clock.now), _row("live")]) == vk.WriteResult(3, 0)
        assert await self._visible(store, docs) == ["live"]
        assert await docs.upsert([_row("live", datetime(1, 1, 1, tzinfo=UTC))]) == vk.WriteResult(1, 0)
        assert await self._visible(store, docs) == []
        if store.capability.insert != "none":
            assert await docs.insert([_row("c", past)]) == vk.WriteResult(1, 0)
            assert await docs.insert([_row("c")]) == vk.WriteResult(1, 0)
            assert await self._visible(store, docs) == ["c"]

    @contract
    async def test_expires_at_round_trips(self, store: AsyncStore, bench: Bench) -> None:
        """The instant to the microsecond, in UTC, from get and scan; from any timezone."""
        docs = await self._mortal(store)
        if docs is None:
            return
        local = datetime(2031, 7, 1, 3, 4, 5, 678_901, tzinfo=timezone(timedelta(hours=5, minutes=45)))
        last = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
        await put(docs, _row("local", local), _row("last", last), _row("never"))
        expected = {"local": local.astimezone(UTC), "last": last, "never": None}
        assert {r.id: r.expires_at for r in await docs.get(list(expected)) if r} == expected
        got = {r.id: r.expires_at async for r in docs.scan()}
        assert got == expected
        assert got["local"] is not None
        assert got["local"].utcoffset() == timedelta(0)
        bench.clock.now = local
        assert await self._visible(store, docs) == ["last", "never"]
        batch = vk.Batch(["b1", "b2"], [EAST, EAST], ["word", "word"], None, [last, None])
        await docs.upsert(batch)
        assert [r and r.expires_at for r in await docs.get(["b1", "b2"])] == [last, None]
        beyond = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(-timedelta(hours=5)))
        bad: list[Any] = [datetime(2031, 1, 1), "2031-01-01", 5, local.date(), beyond]  # noqa: DTZ001
        for value in bad:
            with raises(vk.InvalidRecord, row=0, field="expires_at"):
                await docs.upsert([_row("bad", value)])

    @contract
    async def test_time_to_live(self, store: AsyncStore, bench: Bench) -> None:
        """ttl, a timedelta or seconds from now, for the rows without an expiry of their own."""
        docs = await self._mortal(store)
        if docs is None:
            return
        now = bench.clock.now
        own = now + timedelta(days=3)
        await docs.upsert([_row("a"), _row("own", own)], ttl=timedelta(minutes=2))
        await docs.upsert(iter([_row("b")]), ttl=60)
        await docs.upsert(vk.Batch(["c"], [EAST], ["word"]), ttl=0.5)
        expires = {r.id: r.expires_at async for r in docs.scan()}
        assert expires == {
            "a": now + timedelta(minutes=2),
            "own": own,
            "b": now + timedelta(minutes=1),
            "c": now + timedelta(milliseconds=500),
        }
        bench.clock.advance(minutes=1)
        assert await self._visible(store, docs) == ["a", "own"]
        bad: list[Any] = [
            0,
            -1,
            timedelta(0),
            -timedelta(1),
            True,
            "60",
            float("nan"),
            float("inf"),
            timedelta(days=365 * 9_000),
            1e300,
        ]
        for ttl in bad:
            with raises(vk.InvalidArgument, "ttl"):
                await docs.upsert([_row("x")], ttl=ttl)

    @contract
    async def test_expiry_survives_a_reopen(self, store: AsyncStore, bench: Bench) -> None:
        """What expires does so in every process that opens the store, by that process's clock."""
        docs = await self._mortal(store)
        if docs is None or not store.capability.durable:
            return
        await put(docs, _row("a", bench.clock.now + timedelta(hours=1)), _row("live"))
        await docs.optimize()
        store = await bench.reopen(store)
        docs = await store.collection("docs")
        assert await self._visible(store, docs) == ["a", "live"]
        bench.clock.advance(hours=1)
        assert await self._visible(store, docs) == ["live"]
        await docs.optimize()
        assert await self._visible(store, docs) == ["live"]

    @contract
    async def test_many_expired_rows(self, store: AsyncStore, bench: Bench) -> None:
        """min(k, matching) holds however many nearer rows have expired, before and after optimize."""
        docs = await self._mortal(store, metric="l2", fields={"n": int})
        if docs is None:
            return
        soon = bench.clock.now + timedelta(seconds=1)
        await docs.upsert(
            vk.Record(f"{n:04d}", [n, 0, 0, 0], "word", {"n": n % 10}, None if n % 40 == 39 else soon)
            for n in range(1_600)
        )
        await docs.optimize()
        bench.clock.advance(seconds=1)
        staying = [f"{n:04d}" for n in range(39, 1_600, 40)]
        for _ in range(2):
            assert ids_of(await docs.query([0, 0, 0, 0], k=10)) == staying[:10]
            assert ids_of(await docs.query([0, 0, 0, 0], k=100)) == staying
            assert ids_of(await docs.query([0, 0, 0, 0], k=5, where=F("n") == 9)) == staying[:5]
            assert ids_of(await docs.query([0, 0, 0, 0], k=5, where=F("n") == 8)) == []
            assert await docs.count() == 40
            if store.capability.keyword:
                assert sorted(ids_of(await docs.keyword("word", k=100))) == staying
            await docs.optimize()
