"""Filters: a store's answer to a filter is exactly the rows for which `Filter.matches()` holds, by every verb that takes one.

`matches()` itself is held to a hand-written truth table in the library's own tests.
"""

import math
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import vectorkit as vk
from vectorkit import F
from vectorkit.aio import AsyncCollection, AsyncStore
from vectorkit.testing.effort import effort
from vectorkit.testing.faces import Bench
from vectorkit.testing.kit import Area, all_ids, contract, ids_of, put, raises, rec, reference, rows
from vectorkit.testing.values import FIELDS, GRID_TESTS, OPERATORS, filters, grid_rows, leaf_table, table_rows

TABLE = table_rows()


def _expected(where: vk.Filter) -> list[str]:
    return sorted(record.id for record in TABLE if where.matches(record.metadata))


class Filtering(Area):
    """§5 Rows under a filter, and Filters."""

    async def _table(self, store: AsyncStore, **options: Any) -> AsyncCollection:
        docs = await self.docs(store, "table", 2, metric="l2", fields=FIELDS, **options)
        await put(docs, *TABLE)
        return docs

    @pytest.mark.parametrize("operator", OPERATORS)
    @contract
    async def test_filter_table(self, store: AsyncStore, operator: str) -> None:
        """Every operand under every operator on every field, declared or not, over every kind of stored value."""
        docs = await self._table(store)
        for where in leaf_table(operator):
            expected = _expected(where)
            got = sorted(ids_of(await docs.query([0, 0], k=200, where=where)))
            assert got == expected, where
            assert await docs.count(where) == len(expected), where

    @contract
    async def test_filter_constants(self, store: AsyncStore) -> None:
        """`in_([])` no row, `not_in([])` every row, and the constants of the dict form."""
        docs = await self.docs(store)
        await put(
            docs,
            rec("a", [1, 0, 0, 0], "word", tags=["x"], n=1),
            rec("b", [0, 1, 0, 0], "word", tags=[]),
            rec("c", [0, 0, 1, 0], "word"),
        )
        cases: list[tuple[Any, list[str]]] = [
            (F("n").in_([]), []), (F("n").not_in([]), ["a", "b", "c"]), ({}, ["a", "b", "c"]), (None, ["a", "b", "c"]),
            ({"$and": []}, ["a", "b", "c"]), ({"$or": []}, []), ({"$not": {"$or": []}}, ["a", "b", "c"]), ({"$not": {}}, []),
            (F("tags").contains_all([]), ["a", "b"]), (F("tags").contains_any([]), []), (~F("tags").contains_any([]), ["a", "b", "c"]),
            (F("n").in_([]) | (F("n") == 1), ["a"]), (F("n").not_in([]) & F("tags").exists(), ["a", "b"]),
        ]  # fmt: skip
        for where, expected in cases:
            assert sorted(ids_of(await docs.query([1, 0, 0, 0], where=where))) == expected, where
            assert await all_ids(docs, where) == expected, where
            assert await docs.count(where) == len(expected), where
            if store.capability.keyword:
                assert sorted(ids_of(await docs.keyword("word", where=where))) == expected, where

    @contract
    async def test_filter_pairs(self, store: AsyncStore) -> None:
        """Every two tests joined in five ways, over rows with every combination of their values."""
        docs = await self.docs(store, "grid", 2, fields={"n": int, "s": str, "tags": list[str]})
        grid = list(grid_rows())
        await put(docs, *grid)
        for one, other in product(GRID_TESTS, repeat=2):
            for where in (one & other, one | other, ~one & other, ~(one | other), (one & ~other) | (other & ~one)):
                expected = sorted(record.id for record in grid if where.matches(record.metadata))
                assert sorted(ids_of(await docs.query([1, 0], k=200, where=where))) == expected, where
                assert await docs.count(where) == len(expected), where

    @contract
    def test_filters_nested(self, bench: Bench) -> None:
        """Generated filters, nested and negated: query, query_many, count and scan agree with `matches()`."""
        store = bench.run(bench.connect())
        docs = bench.run(self._table(store))

        async def check(where: vk.Filter) -> None:
            expected = _expected(where)
            assert sorted(ids_of(await docs.query([0, 0], k=200, where=where))) == expected
            assert await docs.count(where) == len(expected)
            assert await all_ids(docs, where) == expected
            (few,) = await docs.query_many([[0, 0]], k=3, where=where)
            scores = reference("l2", [0, 0], [r.vector for r in TABLE])
            order = sorted((-scores[n], r.id) for n, r in enumerate(TABLE) if where.matches(r.metadata))
            assert [hit.score for hit in few] == pytest.approx([-score for score, _ in order[:3]], abs=1e-5)
            nearer = [id for score, id in order[:3] if len(order) <= 3 or score < order[2][0] - 1e-6]  # noqa: A001
            assert ids_of(few)[: len(nearer)] == nearer, "of a tie at position k the store may choose"
            assert set(ids_of(few)) <= {id for _, id in order}  # noqa: A001
            assert few.coverage != "short"

        @effort(60)
        @given(filters())
        def agree(where: vk.Filter) -> None:
            bench.run(check(where))

        agree()

    @contract
    def test_filters_nested_delete(self, bench: Bench) -> None:
        """Deleting by a generated filter takes exactly the matching rows and says how many."""
        store = bench.run(bench.connect())
        docs = bench.run(self._table(store))
        rows_by_id = {record.id: record for record in TABLE}

        async def check(where: vk.Filter) -> None:
            expected = _expected(where)
            assert await docs.delete(where=where & F("absent").missing()) == len(expected)
            assert await all_ids(docs) == sorted(rows_by_id.keys() - set(expected))
            if expected:
                await docs.upsert([rows_by_id[id] for id in expected])  # noqa: A001

        @effort(25)
        @given(filters(6))
        def agree(where: vk.Filter) -> None:
            bench.run(check(where))

        agree()

    @contract
    def test_filters_nested_update(self, bench: Bench) -> None:
        """Updating by a generated filter changes exactly the matching rows and says how many."""
        store = bench.run(bench.connect())
        docs = bench.run(self._table(store))
        marks = iter(range(10**6))

        async def check(where: vk.Filter) -> None:
            expected = _expected(where)
            mark = next(marks)
            assert await docs.update(where=where, set={"mark": mark}) == len(expected)
            assert await all_ids(docs, F("mark") == mark) == expected

        @effort(25)
        @given(filters(6))
        def agree(where: vk.Filter) -> None:
            bench.run(check(where))

        agree()

    @contract
    def test_filters_nested_keyword(self, bench: Bench) -> None:
        """Keyword and hybrid under a generated filter return exactly the matching rows."""
        store = bench.run(bench.connect())
        docs = bench.run(self._table(store))
        if not store.capability.keyword:
            return

        async def check(where: vk.Filter) -> None:
            expected = _expected(where)
            assert sorted(ids_of(await docs.keyword("word", k=200, where=where))) == expected
            assert sorted(ids_of(await docs.hybrid("word", [0, 0], k=200, where=where))) == expected

        @effort(30)
        @given(filters(6))
        def agree(where: vk.Filter) -> None:
            bench.run(check(where))

        agree()

    @contract
    def test_filters_as_dicts(self, bench: Bench) -> None:
        """A filter and its dict form are one."""
        store = bench.run(bench.connect())
        docs = bench.run(self._table(store))

        async def check(where: vk.Filter) -> None:
            assert await docs.count(where.to_json()) == len(_expected(where))

        @effort(30)
        @given(filters())
        def agree(where: vk.Filter) -> None:
            bench.run(check(where))

        agree()

    @contract
    async def test_dict_form(self, store: AsyncStore) -> None:
        """The written meanings of the dict form: bare values, several operators, several fields, `$$`."""
        docs = await self.docs(store)
        await put(
            docs,
            rec("a", [1, 0, 0, 0], None, **{"n": 1, "s": "x", "$p": 1, "a.b": 1, "tags": ["p", "q"]}),
            rec(
                "b",
                [0, 1, 0, 0],
                None,
                **{"n": 5, "s": "x", "$$p": 1, "a": {"b": 1}, "t": datetime(2024, 5, 1, tzinfo=UTC)},
            ),
        )
        cases: list[tuple[dict[str, Any], str]] = [
            ({"n": 1}, "a"), ({"n": {"$gte": 1, "$lt": 5}}, "a"), ({"n": {"$gt": 1}, "s": "x"}, "b"), ({"$$p": 1}, "a"),
            ({"$$$p": 1}, "b"), ({"a.b": 1}, "a"), ({"n": {"$in": [5, 6]}}, "b"), ({"n": {"$nin": [5]}}, "a"), ({"n": {"$ne": 5}}, "a"),
            ({"tags": {"$contains": "p"}}, "a"), ({"tags": {"$contains_any": ["z", "q"]}}, "a"), ({"tags": {"$contains_all": ["q", "p"]}}, "a"),
            ({"tags": {"$exists": False}}, "b"), ({"tags": {"$exists": True}}, "a"), ({"s": {"$startswith": "x"}, "n": {"$lte": 1}}, "a"),
            ({"$not": {"n": 1}}, "b"), ({"$or": [{"n": 5}, {"n": 6}]}, "b"), ({"$and": [{"s": "x"}, {"n": 1}]}, "a"),
            ({"t": {"$date": "2024-05-01T02:00:00+02:00"}}, "b"), ({"t": {"$lt": {"$date": "2024-05-01T00:00:00.000001Z"}}}, "b"),
            ({"t": datetime(2024, 5, 1, tzinfo=UTC)}, "b"), ({"n": {"$eq": 5.0}}, "b"), ({"n": {"$in": (5,)}}, "b"),
        ]  # fmt: skip
        for where, expected in cases:
            assert ids_of(await docs.query([1, 0, 0, 0], where=where)) == [expected], where
            assert await all_ids(docs, where) == [expected], where

    @contract
    async def test_fields_are_literal(self, store: AsyncStore) -> None:
        """A dot is a dot: no path is walked, no case folded, no normal form changed; nested mappings are not filterable."""
        docs = await self.docs(store, fields={"a.b": int, "x y": str, "é": int})
        await put(
            docs,
            rec("dotted", [1, 0, 0, 0], None, **{"a.b": 1, "x y": "p"}),
            rec("nested", [0, 1, 0, 0], None, a={"b": 1}, é=1),
            rec("listed", [0, 0, 1, 0], None, **{"a": [{"b": 1}] if False else [1], "e\u0301": 1, "A.B": 1}),
        )
        cases: list[tuple[vk.Filter, list[str]]] = [
            (F("a.b") == 1, ["dotted"]), (F("a") == 1, []), (F("a").exists(), ["listed", "nested"]), (F("a").contains("b"), []),
            (F("a").contains(1), ["listed"]), (F("é") == 1, ["nested"]), (F("e\u0301") == 1, ["listed"]), (F("A.B") == 1, ["listed"]),
            (F("x y") == "p", ["dotted"]), (F("b") == 1, []), (F("a.b").missing(), ["listed", "nested"]), (F("a[0]").exists(), []),
        ]  # fmt: skip
        for where, expected in cases:
            assert await all_ids(docs, where) == expected, where
            assert sorted(ids_of(await docs.query([1, 0, 0, 0], where=where))) == expected, where

    @contract
    async def test_declared_types_are_enforced(self, store: AsyncStore) -> None:
        """A declared field takes its type; another is InvalidRecord, naming row and field, by upsert, insert and update."""
        docs = await self.docs(store, fields=FIELDS)
        good = {
            "s": "x", "b": True, "i": 2**53 + 1, "f": 0.5, "t": datetime(2024, 1, 1, tzinfo=UTC),
            "ls": ["x"], "lb": [True], "li": [1], "lf": [0.5], "lt": [datetime(2024, 1, 1, tzinfo=UTC)],
        }  # fmt: skip
        await put(docs, rec("good", [1, 0, 0, 0], None, **good))
        wrong: dict[str, list[Any]] = {
            "s": [1, True, ["x"], {}], "b": [1, 0, "true", [True]], "i": [True, 1.0, 1.5, "1", [1]], "f": [True, "0.5", [0.5], 2**53 + 1],
            "t": ["2024-01-01", 0], "ls": ["x", [1], [True]], "lb": [True, [1]], "li": [1, [1.0], [True], ["1"]], "lf": [0.5, [True]],
            "lt": [["2024-01-01"]],
        }  # fmt: skip
        for name, values in wrong.items():
            for value in values:
                bad = [rec("fine", [1, 0, 0, 0]), rec("bad", [1, 0, 0, 0], None, **{name: value})]
                with raises(vk.InvalidRecord, repr(name), row=1, field=name):
                    await docs.upsert(bad)
                if store.capability.insert != "none":
                    with raises(vk.InvalidRecord, repr(name), row=1, field=name):
                        await docs.insert(bad, on_conflict="skip")
                with raises(vk.InvalidRecord, repr(name), field=name):
                    await docs.update(ids=["good"], set={name: value})
                with raises(vk.InvalidRecord, repr(name), field=name):
                    await docs.update(where=F("s") == "x", set={name: value})
        assert await all_ids(docs) == ["good"]
        (record,) = await docs.get(["good"])
        assert record is not None
        assert record.metadata == good

    @contract
    async def test_filters_that_mean_nothing(self, store: AsyncStore) -> None:
        """InvalidFilter, naming field and operator, from every verb that takes a filter; never a dropped clause."""
        docs = await self.docs(store, fields={"n": int})
        await put(docs, *rows(3))
        bad: list[tuple[Any, str | None, str | None]] = [
            ({"n": {"$regex": "x"}}, "n", "$regex"), ({"n": {"$gt": True}}, "n", "$gt"), ({"n": {"$gt": None}}, "n", "$gt"), ({"n": None}, "n", "$eq"),
            ({"n": {"$in": 1}}, "n", "$in"), ({"n": {"$in": "abc"}}, "n", "$in"), ({"n": {"$nin": None}}, "n", "$nin"),
            ({"n": {"$in": [None]}}, "n", "$in"), ({"n": {"$in": [[1]]}}, "n", "$in"), ({"n": [1]}, "n", "$eq"), ({"n": math.nan}, "n", "$eq"),
            ({"n": {"$lt": math.inf}}, "n", "$lt"), ({"n": datetime(2024, 1, 1)}, "n", "$eq"), ({"n": b"x"}, "n", "$eq"),  # noqa: DTZ001
            ({"n": {"$eq": "\ud800"}}, "n", "$eq"), ({"n": {"$eq": "a\0b"}}, "n", "$eq"), ({"n": {"$startswith": 1}}, "n", "$startswith"),
            ({"n": {"$exists": 1}}, "n", "$exists"), ({"n": {"$exists": "yes"}}, "n", "$exists"), ({"n": {"$contains": ["a"]}}, "n", "$contains"),
            ({"n": {"$contains_any": "abc"}}, "n", "$contains_any"), ({"n": {"$contains_all": {"a": 1}}}, "n", "$contains_all"),
            ({"n": {"$gte": 1, "$near": 2}}, "n", "$near"), ({"n": {"eq": 1}}, "n", "eq"), ({"n": {}}, "n", None), ({"$nor": []}, None, "$nor"),
            ({"$where": "1"}, None, "$where"), ({"$and": {}}, None, "$and"), ({"$or": {"n": 1}}, None, "$or"), ({"_vk_id": 1}, "_vk_id", None),
            ({"_vk_": {"$exists": True}}, "_vk_", None), ({"": 1}, None, None), ({1: 1}, None, None), ({"$not": []}, None, None),
            ({"$and": [1]}, None, None), ({"a\0b": 1}, None, None), ({"a\ud800": 1}, None, None), ({"n": {"$date": "yesterday"}}, "n", "$eq"),
            ({"n": {"$date": 5}}, "n", "$eq"), ({"n": {"$gt": {"$date": "2024-01-01T00:00:00"}}}, "n", "$gt"), ({"n": {1}}, "n", "$eq"),
            ({"n": np.int64(1)}, "n", "$eq"), ("n == 1", None, None), ([("n", 1)], None, None), (1, None, None), (F("n"), None, None), (True, None, None),
        ]  # fmt: skip
        for where, name, operator in bad:
            expected = {key: value for key, value in (("field", name), ("operator", operator)) if value is not None}
            for verb in _verbs_with(docs, where, keyword=store.capability.keyword):
                with raises(vk.InvalidFilter, **expected):
                    await verb()
        assert await docs.count() == 3

    @contract
    async def test_filter_limits(self, store: AsyncStore) -> None:
        """Depth up to 32, terms up to 10,000; a chain of 200 is one level deep; more is InvalidFilter."""
        docs = await self.docs(store)
        await put(docs, *rows(12))
        any_of: vk.Filter = F("n") == 0
        all_of: vk.Filter = F("n") != 0
        for n in range(1, 200):
            any_of |= F("n") == 2 * n
            all_of &= F("n") != 2 * n
        assert await docs.count(any_of) == 6
        assert await docs.count(all_of) == 6
        deep: vk.Filter = F("n") == 1
        for level in range(31):
            deep = (deep | (F("n") == -1)) if level % 2 else (deep & (F("n") != -1))
        assert deep.depth == 32
        assert await docs.count(deep) == 1
        assert ids_of(await docs.query([1, 0, 0, 0], where=deep)) == ["r00001"]
        with raises(vk.InvalidFilter, "32"):
            await docs.count({"$not": deep.to_json()})
        many = F("n").in_(range_list(10_000))
        assert await docs.count(many) == 12
        assert len(await docs.query([1, 0, 0, 0], k=20, where=~many)) == 0
        with raises(vk.InvalidFilter, "terms"):
            await docs.count({"n": {"$in": range_list(10_001)}})
        with raises(vk.InvalidFilter, "terms"):
            await docs.count({"$and": [many.to_json(), {"n": 1}]})

    @contract
    async def test_query_returns_min_of_k_and_matching(self, store: AsyncStore) -> None:
        """Exactly min(k, matching) rows at every selectivity, on declared and undeclared fields, before and after optimize."""
        docs = await self.docs(store, dimension=8, fields={"bucket": int})
        rng = np.random.default_rng(17)
        vectors = rng.normal(size=(1200, 8)).astype(np.float32)
        metadata = [{"bucket": n % 100, "free": n % 100, "rare": n} for n in range(1200)]
        await docs.upsert(vk.Batch([f"{n:04d}" for n in range(1200)], vectors, None, metadata))
        for _ in range(2):
            for query in rng.normal(size=(3, 8)).astype(np.float32):
                cases: list[tuple[vk.Filter, Iterable[int]]] = [
                    (F("bucket") == 3, range(3, 1200, 100)), (F("free") == 3, range(3, 1200, 100)), (F("bucket") < 50, [n for n in range(1200) if n % 100 < 50]),
                    (F("rare") == 77, [77]), (F("rare").in_([1, 2, 3]), [1, 2, 3]), (F("rare") == -1, []), (F("bucket") >= 0, range(1200)),
                    ((F("bucket") == 3) & (F("rare") > 1000), range(1003, 1200, 100)), (~(F("free") >= 1), range(0, 1200, 100)),
                ]  # fmt: skip
                for where, matching in cases:
                    alive = set(matching)
                    for k in (1, 10, 40):
                        hits = await docs.query(query, k=k, where=where)
                        assert len(hits) == min(k, len(alive)), where
                        assert {int(h.id) for h in hits} <= alive, where
                        assert hits.coverage in {"exact", "complete"}
            await docs.optimize()

    @contract
    async def test_recall_under_a_filter(self, store: AsyncStore) -> None:
        """At least 0.95 of the exact filtered answer at default settings, from 50 % to 0.5 %."""
        docs = await self.docs(store, dimension=16, fields={"bucket": int})
        rng = np.random.default_rng(23)
        vectors = rng.normal(size=(2000, 16)).astype(np.float32)
        await docs.upsert(
            vk.Batch([str(n) for n in range(2000)], vectors, None, [{"bucket": n % 200} for n in range(2000)])
        )
        await docs.optimize()
        queries = rng.normal(size=(20, 16)).astype(np.float32)
        for where, keep in ((None, 200), (F("bucket") < 100, 100), (F("bucket") < 20, 20), (F("bucket") == 7, 0)):
            found = wanted = 0
            for query, hits in zip(queries, await docs.query_many(queries, k=10, where=where), strict=True):
                scores = reference("cosine", query, vectors)
                rows_left = [n for n in range(2000) if (n % 200 < keep if keep else n % 200 == 7)]
                best = set(sorted(rows_left, key=lambda n: -scores[n])[:10])
                found += len(best & {int(h.id) for h in hits})
                wanted += len(best)
                assert len(hits) == 10
            assert found / wanted >= 0.95, where

    @contract
    async def test_coverage_is_honest(self, store: AsyncStore) -> None:
        """ "exact" is the true top k; "complete" has min(k, matching) rows; "short" is never said of a full answer."""
        docs = await self.docs(store, dimension=16, fields={"bucket": int})
        rng = np.random.default_rng(29)
        vectors = rng.normal(size=(1500, 16)).astype(np.float32)
        await docs.upsert(
            vk.Batch([f"{n:04d}" for n in range(1500)], vectors, None, [{"bucket": n % 50} for n in range(1500)])
        )
        await docs.optimize()
        for query in rng.normal(size=(12, 16)).astype(np.float32):
            scores = reference("cosine", query, vectors)
            for where, matching in (
                (None, range(1500)),
                (F("bucket") == 3, range(3, 1500, 50)),
                (F("bucket") < 25, [n for n in range(1500) if n % 50 < 25]),
            ):
                for width in (None, 10):
                    hits = await docs.query(query, k=10, where=where, ef_search=width)
                    assert len(hits) == 10
                    assert hits.coverage in {"exact", "complete"}
                    told = await docs.explain(query, k=10, where=where, ef_search=width)
                    assert (told.coverage, told.returned) == (hits.coverage, 10)
                    if hits.coverage == "exact":
                        assert ids_of(hits) == [f"{n:04d}" for n in sorted(matching, key=lambda n: -scores[n])[:10]]


def _verbs_with(docs: AsyncCollection, where: Any, *, keyword: bool) -> list[Callable[[], Awaitable[Any]]]:
    """Every verb that takes a filter, ready to be called with this one."""
    verbs: list[Callable[[], Awaitable[Any]]] = [
        lambda: docs.query([1, 0, 0, 0], where=where),
        lambda: docs.query_many([[1, 0, 0, 0]], where=where),
        lambda: docs.count(where),
        lambda: docs.explain([1, 0, 0, 0], where=where),
        lambda: docs.delete(where=where),
        lambda: docs.update(where=where, set={"x": 1}),
        lambda: all_ids(docs, where),
    ]
    if keyword:
        verbs += [lambda: docs.keyword("word1", where=where), lambda: docs.hybrid("word1", [1, 0, 0, 0], where=where)]
    return verbs


def range_list(count: int) -> list[int]:
    """0 to count-1."""
    return list(range(count))
