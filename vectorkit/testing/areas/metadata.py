"""Metadata: every value comes back as it went in, of the same type, by every verb that returns rows.

Hostile strings go through every name, id, key, value and query text here too: they are data and nothing else.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vectorkit as vk
from vectorkit import F
from vectorkit.aio import AsyncCollection, AsyncStore
from vectorkit.testing.effort import effort
from vectorkit.testing.faces import Bench
from vectorkit.testing.kit import Area, all_ids, contract, ids_of, one, put, raises, rec, same, same_in_any_order
from vectorkit.testing.values import DATETIMES, NOON, PAYLOADS, STRINGS, VALUES

EAST = [1.0, 0.0, 0.0, 0.0]


class _Level(IntEnum):
    HIGH = 3


class _Whole(int):
    pass


class _Real(float):
    pass


def _as_returned(value: Any) -> Any:
    """The written value as the contract says it comes back: tuples as lists, datetimes in UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, list | tuple):
        return [_as_returned(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _as_returned(item) for key, item in value.items()}
    return value


_texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)
_numbers = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))
_instants = st.datetimes(
    datetime(1, 1, 2),  # noqa: DTZ001
    datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), timezone(-timedelta(hours=11))]),
)
_scalars = st.one_of(_texts, st.booleans(), _numbers, _instants)
_lists = st.one_of(*(st.lists(kind, max_size=4) for kind in (_texts, st.booleans(), _numbers, _instants)))
_inner = st.recursive(
    st.one_of(_scalars, st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_texts, inner, max_size=3)),
    max_leaves=6,
)
_keys = _texts.filter(lambda key: key != "" and not key.startswith("_vk_"))
_documents = st.dictionaries(
    _keys, st.one_of(_scalars, _lists, st.dictionaries(_texts, _inner, max_size=3)), max_size=6
)


class Metadata(Area):
    """§5 Metadata values, and that nothing is ever read as syntax."""

    async def _everywhere(self, store: AsyncStore, docs: AsyncCollection, id: str) -> list[Mapping[str, Any]]:
        """The row's metadata as each reading verb gives them; its vector is EAST, its text has the word `word`."""
        found = [(await one(docs, id)).metadata]
        found += [r.metadata async for r in docs.scan() if r.id == id]
        found += [h.metadata for h in await docs.query(EAST, k=1000) if h.id == id]
        found += [h.metadata for h in (await docs.query_many([EAST], k=1000))[0] if h.id == id]
        if store.capability.keyword:
            found += [h.metadata for h in await docs.keyword("word", k=1000) if h.id == id]
            found += [h.metadata for h in await docs.hybrid("word", EAST, k=1000) if h.id == id]
        assert len(found) == (6 if store.capability.keyword else 4)
        return found

    @contract
    async def test_metadata_types_round_trip(self, store: AsyncStore) -> None:
        """An int comes back an int, a float a float, a bool a bool, a datetime the instant in UTC; by every verb."""
        docs = await self.docs(store)
        metadata = {f"key{n}": value for n, value in enumerate(VALUES)}
        await put(docs, vk.Record("a", EAST, "word", metadata), vk.Record("b", EAST, "word"))
        expected = _as_returned(metadata)
        for got in await self._everywhere(store, docs, "a"):
            assert isinstance(got, dict)
            for key, value in expected.items():
                assert same(got[key], value) or same_in_any_order({"": got[key]}, {"": value}), (got[key], value)
            assert got.keys() == expected.keys()
        assert [dict(m) for m in await self._everywhere(store, docs, "b")] == [{}] * (
            6 if store.capability.keyword else 4
        )

    @contract
    async def test_metadata_from_each_write(self, store: AsyncStore) -> None:
        """The same types come back whichever verb wrote them: upsert, insert, Batch, update."""
        docs = await self.docs(store)
        metadata = {f"key{n}": value for n, value in enumerate(VALUES)}
        expected = _as_returned(metadata)
        await docs.upsert(vk.Batch(["batch"], [EAST], None, [metadata]))
        await put(docs, rec("updated", EAST, None, key0="before"))
        names = ["batch", "updated"]
        if store.capability.insert != "none":
            await docs.insert([vk.Record("inserted", EAST, None, metadata)])
            await docs.insert([vk.Record("skipped", EAST, None, metadata)], on_conflict="skip")
            names += ["inserted", "skipped"]
        await docs.update(ids=["updated"], set=metadata)
        for name in names:
            assert same_in_any_order((await one(docs, name)).metadata, expected), name

    @contract
    async def test_lenient_types_come_back_plain(self, store: AsyncStore) -> None:
        """A tuple comes back a list; subclasses as their base; any Mapping as a dict; instants in UTC to the microsecond."""
        docs = await self.docs(store)
        instant = datetime(2024, 3, 31, 2, 30, 0, 123_457, tzinfo=timezone(timedelta(hours=2)))
        given_ = {
            "tuple": ("a", "b"), "empty": (), "enum": _Level.HIGH, "int": _Whole(7), "float": _Real(0.5), "proxy": MappingProxyType({"k": (1, 2)}),
            "t": instant, "ts": (instant,), "zone": DATETIMES[2], "nested": {"t": instant},
        }  # fmt: skip
        await put(docs, vk.Record("a", EAST, None, MappingProxyType(given_)))
        utc = datetime(2024, 3, 31, 0, 30, 0, 123_457, tzinfo=UTC)
        expected = {
            "tuple": ["a", "b"], "empty": [], "enum": 3, "int": 7, "float": 0.5, "proxy": {"k": [1, 2]}, "t": utc, "ts": [utc],
            "zone": NOON - timedelta(microseconds=1), "nested": {"t": utc},
        }  # fmt: skip
        got = (await one(docs, "a")).metadata
        assert same_in_any_order(got, expected), got
        assert got["t"].tzinfo is UTC

    @contract
    def test_metadata_generated(self, bench: Bench) -> None:
        """Any document that may be stored comes back the same."""
        store = bench.run(bench.connect())
        docs = bench.run(self.docs(store))

        async def check(metadata: dict[str, Any], text: str | None) -> None:
            await put(docs, vk.Record("a", EAST, text, metadata))
            record = await one(docs, "a")
            assert same_in_any_order(record.metadata, _as_returned(metadata)), record.metadata
            assert record.text == text
            (hit,) = await docs.query(EAST)
            assert same_in_any_order(hit.metadata, _as_returned(metadata))
            for key, value in metadata.items():
                kept = not isinstance(value, list | dict)
                assert await docs.count(F(key) == value if kept else F(key).exists()) == 1

        @effort(60)
        @given(_documents, st.none() | _texts)
        def agree(metadata: dict[str, Any], text: str | None) -> None:
            bench.run(check(metadata, text))

        agree()

    @contract
    async def test_none_is_never_stored(self, store: AsyncStore) -> None:
        """None means absent: as a value it is refused or left out, never kept; inside a nested mapping it is kept."""
        docs = await self.docs(store)
        try:
            await docs.upsert([rec("a", EAST, None, gone=None, n=1)])
        except vk.InvalidRecord as error:
            assert (error.row, error.field) == (0, "gone")
            await put(docs, rec("a", EAST, None, n=1))
        assert (await one(docs, "a")).metadata == {"n": 1}
        assert await docs.count(F("gone").missing()) == 1
        await put(docs, rec("a", EAST, None, nested={"gone": None, "list": [None, {"x": None}]}))
        assert (await one(docs, "a")).metadata == {"nested": {"gone": None, "list": [None, {"x": None}]}}
        assert await docs.count(F("nested").exists()) == 1
        for where in (
            F("nested") == "x",
            F("nested").contains(1),
            F("nested").contains_all([]),
            F("nested").startswith(""),
            F("nested") < 1,
        ):
            assert await docs.count(where) == 0, where

    @contract
    async def test_hostile_ids_keys_values_and_texts(self, store: AsyncStore) -> None:
        """Quotes, SQL, query syntax and every script are data in ids, keys, values and texts, and bound in filters."""
        docs = await self.docs(store, dimension=2, metric="l2", fields={"s": str})
        records = [
            vk.Record(payload, [n, 0], f"{payload} word", {"s": payload, "u": payload, "list": [payload], payload: n})
            for n, payload in enumerate(PAYLOADS)
        ]
        await put(docs, *records)
        count = len(PAYLOADS)
        assert await docs.count() == count
        assert await all_ids(docs) == sorted(PAYLOADS)
        for n, payload in enumerate(PAYLOADS):
            record = await one(docs, payload)
            assert record.text == f"{payload} word"
            assert same_in_any_order(record.metadata, {"s": payload, "u": payload, "list": [payload], payload: n})
            for where in (
                F("s") == payload,
                F("u") == payload,
                F("list").contains(payload),
                F(payload) == n,
                F("s").in_([payload]),
                F(payload).exists(),
            ):
                assert ids_of(await docs.query([n, 0], k=3, where=where)) == [payload], where
                assert await docs.count(where) == 1, where
            starts = sorted(other for other in PAYLOADS if other.startswith(payload))
            assert await all_ids(docs, F("u").startswith(payload)) == starts
            assert await all_ids(docs, F("s").startswith(payload)) == starts
            assert await docs.count(F("s") > payload) == sum(other > payload for other in PAYLOADS)
            assert await docs.count(F("u") != payload) == count - 1
        for payload in PAYLOADS:
            assert await docs.update(where=F("s") == payload, set={payload: "set"}, unset=["list"]) == 1
            assert (await one(docs, payload)).metadata == {"s": payload, "u": payload, payload: "set"}
        for n, payload in enumerate(PAYLOADS[:20]):
            assert await docs.delete(where=F(payload) == "set") == 1
            assert await docs.count() == count - n - 1
        for payload in PAYLOADS[20:30]:
            assert await docs.delete(ids=[payload]) == 1
        assert await docs.count() == count - 30
        assert await store.collections() == ["docs"]

    @contract
    async def test_hostile_declared_fields_and_names(self, store: AsyncStore) -> None:
        """Field names in a spec are literal as well; a hostile collection name is refused."""
        names = [payload for payload in PAYLOADS if len(payload) < 100]
        docs = await self.docs(store, dimension=2, metric="l2", fields=dict.fromkeys(names, int))
        await put(
            docs,
            *[vk.Record(str(n), [n, 0], None, {name: n}) for n, name in enumerate(names)],
            vk.Record("none", [-1, 0]),
        )
        for n, name in enumerate(names):
            assert ids_of(await docs.query([0, 0], where=F(name) == n)) == [str(n)], name
            assert await docs.count(F(name).exists()) == 1, name
            assert await docs.count(F(name) != n) == len(names), name
        for payload in PAYLOADS:
            if not payload.isascii() or not payload.replace(".", "").replace("-", "").isalnum() or len(payload) > 100:
                with raises(vk.InvalidArgument):
                    await store.collection(payload)

    @contract
    async def test_hostile_query_texts(self, store: AsyncStore) -> None:
        """Keyword queries of any characters are words or nothing; they never fail and never match what has none of them."""
        if not store.capability.keyword:
            return
        docs = await self.docs(store)
        await put(docs, rec("plain", EAST, "alpha beta"), rec("other", EAST, "gamma delta"))
        for payload in PAYLOADS:
            for hits in (
                await docs.keyword(payload),
                await docs.keyword(f"{payload} alpha"),
                await docs.keyword(f"alpha{payload} zzz"),
            ):
                assert set(ids_of(hits)) <= {"plain", "other"}
            assert "plain" in ids_of(await docs.keyword(f"{payload} alpha"))
            assert len(await docs.hybrid(payload, EAST)) == 2
        many = " ".join(f"w{n}" for n in range(5_000))
        assert ids_of(await docs.keyword(f"{many} alpha {'x' * 100_000}")) == ["plain"]
        bad: list[Any] = [None, 5, b"alpha", ["alpha"], "a\0b", "\ud800"]
        for text in bad:
            with raises(vk.InvalidArgument):
                await docs.keyword(text)
            with raises(vk.InvalidArgument):
                await docs.hybrid(text, EAST)

    @contract
    async def test_strings_keep_their_form(self, store: AsyncStore) -> None:
        """No case folded, no normal form changed, no blank trimmed, in values, lists and nested keys."""
        docs = await self.docs(store)
        await put(
            docs,
            *[
                vk.Record(f"v{n}", EAST, text, {"v": text, "l": [text], "m": {text: text}})
                for n, text in enumerate(STRINGS)
            ],
        )
        for n, text in enumerate(STRINGS):
            record = await one(docs, f"v{n}")
            assert record.text == text
            assert record.metadata == {"v": text, "l": [text], "m": {text: text}}
            assert await all_ids(docs, F("v") == text) == [f"v{n}"]
        with pytest.raises(TypeError):
            hash(await one(docs, "v0"))
